"""`tokenyard payments` and `tokenyard dunning`: what a provider takes, and what follows where nobody pays."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from tokenyard.cli.command import CommandRun, platform_command
from tokenyard.cli.output import CommandOutput, dollars, moment_ms, table

payments = typer.Typer(help="Payments through the provider.", no_args_is_help=True)
dunning = typer.Typer(help="What follows when an invoice is overdue.", no_args_is_help=True)

Owner = Annotated[str, typer.Argument(help="The organization's id or slug.")]
OneOwner = Annotated[str | None, typer.Option(help="Only of this one: an id or slug.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the audit log.")]


@platform_command(payments, "list")
async def listing(
    run: CommandRun,
    organization: OneOwner = None,
    state: Annotated[
        str | None, typer.Option(help="created, processing, succeeded, failed or cancelled; default: all.")
    ] = None,
) -> CommandOutput:
    """List the newest payments."""
    found = await run.api.payments(organization=organization, state=state)
    rows = [
        (
            *(one.id, one.organization, one.invoice or "credit", dollars(one.amount), one.state),
            *(one.failure_code, one.charge or "", moment_ms(one.created_at_ms)),
        )
        for one in found
    ]
    return CommandOutput(found, table(("ID", "ORGANIZATION", "FOR", "AMOUNT", "STATE", "WHY", "CHARGE", "AT"), rows))


@platform_command(payments, "automatic")
async def automatic(run: CommandRun, organization: Owner) -> CommandOutput:
    """Show what an organization buys by itself, and why no more where its method was refused."""
    found = await run.api.automatic_top_up(organization)
    row = (dollars(found.threshold), dollars(found.amount), dollars(found.month_limit), found.failure_code)
    return CommandOutput(found, table(("BELOW", "BUYS", "IN A MONTH", "REFUSED"), [row]))


@platform_command(payments, "stop-automatic")
async def stop_automatic(run: CommandRun, organization: Owner) -> CommandOutput:
    """Buy nothing by itself any more; only the organization can begin it again."""
    ended = await run.api.stop_automatic_top_up(organization)
    return CommandOutput(ended, f"{organization} buys nothing by itself any more.")


@platform_command(dunning, "list")
async def dunned(run: CommandRun, organization: OneOwner = None) -> CommandOutput:
    """List the invoices that were dunned, the last step first."""
    found = await run.api.dunned(organization)
    rows = [
        (one.id, one.organization, one.steps, moment_ms(one.stepped_at_ms), "blocks" if one.blocks else "")
        for one in found
    ]
    return CommandOutput(found, table(("INVOICE", "ORGANIZATION", "STEPS", "LAST STEP", ""), rows))


@platform_command(dunning, "exempt")
async def exempt(run: CommandRun, organization: Owner, reason: Reason) -> CommandOutput:
    """Dun an organization no more, and let it go on where it is blocked."""
    found = await run.api.except_from_dunning(organization, exempt=True, paused_until_ms=0, reason=reason)
    return CommandOutput(found, f"{organization} is not dunned any more.")


@platform_command(dunning, "pause")
async def pause(
    run: CommandRun,
    organization: Owner,
    until: Annotated[datetime, typer.Option(help="In UTC.")],
    reason: Reason,
) -> CommandOutput:
    """Take no further step before a moment; what was done stays."""
    at_ms = round(until.replace(tzinfo=UTC).timestamp() * 1000)
    found = await run.api.except_from_dunning(organization, exempt=False, paused_until_ms=at_ms, reason=reason)
    return CommandOutput(found, f"{organization} is dunned again from {moment_ms(at_ms)} UTC on.")


@platform_command(dunning, "resume")
async def resume(run: CommandRun, organization: Owner, reason: Reason) -> CommandOutput:
    """Dun an organization as all others are."""
    found = await run.api.except_from_dunning(organization, exempt=False, paused_until_ms=0, reason=reason)
    return CommandOutput(found, f"{organization} is dunned as all others are.")
