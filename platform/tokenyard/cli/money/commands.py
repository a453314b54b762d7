"""`tokenyard usage`, `invoice`, `request`, `credit` and `reconcile`. Amounts are nano-dollars in `--json`."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from tokenyard.cli.command import CommandFailed, CommandRun, platform_command
from tokenyard.cli.money.books import trial_balance
from tokenyard.cli.money.request_report import request_report
from tokenyard.cli.output import CommandOutput, details, dollars, moment_ms, table
from tokenyard.clients.platform_api.proof_shapes import ReconciliationInfo
from tokenyard.clients.platform_api.shapes import InvoiceInfo, InvoiceLineInfo, OrganizationInfo, UsageInfo
from tokenyard.core.money import InexactAmount, from_dollars

credit = typer.Typer(help="Prepaid credit.", no_args_is_help=True)

Owner = Annotated[str, typer.Argument(help="The organization's id or slug.")]
Month = Annotated[str | None, typer.Option(help="YYYY-MM; default: this month.")]


def this_month() -> str:
    return datetime.now(UTC).strftime("%Y-%m")


def money_commands(app: typer.Typer) -> None:
    platform_command(app, "usage")(usage)
    platform_command(app, "invoice")(invoice)
    platform_command(app, "request")(request)
    platform_command(app, "reconcile")(reconcile)
    platform_command(app, "books")(trial_balance)


async def usage(run: CommandRun, organization: Owner, month: Month = None) -> CommandOutput:
    """Show an organization's usage of a month by model."""
    owner = await run.organization(organization)
    found = await run.api.usage_of_month(owner.id, month or this_month())
    return CommandOutput({"object": "list", "data": found}, usage_text(found))


def usage_text(found: Sequence[UsageInfo]) -> str:
    rows = [
        (
            *(one.model, one.requests, one.prompt_tokens, one.cached_tokens, one.completion_tokens),
            *(one.trained_tokens, dollars(one.amount)),
        )
        for one in found
    ]
    headings = ("MODEL", "REQUESTS", "INPUT", "CACHED", "OUTPUT", "TRAINED", "COST")
    return table(headings, rows, empty="No usage yet.")


async def invoice(run: CommandRun, organization: Owner, month: Month = None) -> CommandOutput:
    """Show an organization's invoice of a month, line by line."""
    found = await invoice_of(run, await run.organization(organization), month or this_month())
    return CommandOutput(found, invoice_text(found))


async def invoice_of(run: CommandRun, owner: OrganizationInfo, month: str) -> InvoiceInfo:
    """Return the invoice of the month as it was last drafted; where there is none it raises `CommandFailed`."""
    for found in await run.api.invoices_of(owner.id, month):
        if found.period == month:
            return found
    raise CommandFailed(f"{owner.slug} has no invoice for {month}.")


def invoice_text(found: InvoiceInfo) -> str:
    rows = [
        (
            line.usage_period,
            line.model,
            line.kind,
            f"{line.quantity} {line.unit}",
            _rate_text(line),
            dollars(line.amount),
        )
        for line in found.lines
    ]
    lines = table(("USED IN", "MODEL", "WHAT", "QUANTITY", "RATE", "AMOUNT"), rows, empty="No lines.")
    totals = "\n".join(f"{label:<16}{dollars(amount)}" for label, amount in _sums(found))
    name = found.id if found.number is None else f"{found.number} ({found.id})"
    title = f"Invoice {name}, {found.period}, {found.state} of {moment_ms(found.drafted_at_ms)}"
    return f"{title}\n\n{lines}\n\n{totals}"


def _sums(found: InvoiceInfo) -> list[tuple[str, int]]:
    """Return what adds up to what is due, each with its name; of tax and rounding only what there is."""
    more = (("Tax", found.tax), ("Held by prices", -found.tax_included), ("Rounding", found.rounding))
    return [
        *(("Total", found.total), ("Paid by credit", found.credit_applied)),
        *(one for one in more if one[1]),
        ("Due", found.amount_due),
    ]


def _rate_text(line: InvoiceLineInfo) -> str:
    if line.unit == "tokens":
        return f"{dollars(line.rate * 1_000_000)} a million"
    return f"{dollars(line.rate)} {'an hour' if line.unit == 'hours' else 'a gigabyte-month'}"


async def request(
    run: CommandRun, request: Annotated[str, typer.Argument(help="The request's id, req_...")]
) -> CommandOutput:
    """Tell a request's whole story: attempts, both reports, charge, journal, invoice."""
    found = await run.api.request(request)
    return CommandOutput(found, request_report(found))


async def reconcile(run: CommandRun) -> CommandOutput:
    """Check the invariants of the money; exit with 1 where one is broken."""
    found = await run.api.reconcile()
    answer = CommandOutput(found, reconciliation_text(found))
    if not found.ok:
        run.emit(*answer)
        raise CommandFailed("The books do not agree; see above.")
    return answer


def reconciliation_text(found: ReconciliationInfo) -> str:
    """Show what is broken first; the rest is named because it explains a sum."""
    ordered = sorted(found.differences, key=lambda one: not one.broken)
    rows = [("broken" if one.broken else "may be", one.name, one.subject, one.detail) for one in ordered]
    differences = table(("", "DIFFERENCE", "WHERE", "WHAT"), rows, empty="No difference.")
    return f"{differences}\n\n{details({'tokens': found.tokens})}"


@platform_command(credit, "grant")
async def grant(
    run: CommandRun,
    organization: Owner,
    amount: Annotated[str, typer.Argument(help="Dollars, such as 25 or 0.50.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the journal.")],
    idempotency_key: Annotated[str | None, typer.Option(help="The same key never grants twice.")] = None,
) -> CommandOutput:
    """Give an organization credit."""
    try:
        nano = from_dollars(amount)
    except InexactAmount as error:
        raise CommandFailed(f"{amount!r} is no amount: {error}.") from None
    owner = await run.organization(organization)
    key = idempotency_key or secrets.token_hex(16)
    granted = await run.api.grant_credit(owner.id, nano, reason=reason, idempotency_key=key)
    return CommandOutput(granted, f"{owner.slug} has {dollars(nano)} more credit.")


@platform_command(credit, "list")
async def grants(run: CommandRun, organization: Owner) -> CommandOutput:
    """List the credit an organization was given."""
    owner = await run.organization(organization)
    found = await run.api.grants(owner.id)
    rows = [(moment_ms(one.granted_at_ms), dollars(one.amount), one.reason, one.actor) for one in found]
    return CommandOutput(found, table(("GRANTED", "AMOUNT", "REASON", "BY"), rows))
