"""`tokenyard invoices` and `tokenyard books`: what is due, how it ended, and the trial balance."""

import secrets
from typing import Annotated

import typer

from tokenyard.cli.command import CommandRun, platform_command
from tokenyard.cli.output import CommandOutput, dollars, moment_ms, table
from tokenyard.clients.platform_api.shapes import InvoiceInfo

invoices = typer.Typer(help="Invoices of all organizations, and how they end.", no_args_is_help=True)

Invoice = Annotated[str, typer.Argument(help="Its id, inv_...")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the journal, and the organization reads it.")]


@platform_command(invoices, "list")
async def listing(
    run: CommandRun,
    organization: Annotated[str | None, typer.Option(help="Only of this one: an id or slug.")] = None,
    state: Annotated[
        str | None, typer.Option(help="draft, open, past_due, paid, void or uncollectible; default: all.")
    ] = None,
) -> CommandOutput:
    """List the newest invoices."""
    found = await run.api.invoices(organization=organization, state=state)
    rows = [
        (
            *(one.id, one.number or "", one.organization, one.state, dollars(one.amount_due)),
            "" if one.due_at_ms is None else moment_ms(one.due_at_ms),
        )
        for one in found
    ]
    return CommandOutput(found, table(("ID", "NUMBER", "ORGANIZATION", "STATE", "DUE", "DUE AT"), rows))


@platform_command(invoices, "pay")
async def pay(
    run: CommandRun,
    invoice: Invoice,
    reference: Annotated[str, typer.Option(help="How the bank, or whoever else, names the payment.")],
    idempotency_key: Annotated[str | None, typer.Option(help="The same key is noted once.")] = None,
) -> CommandOutput:
    """Note that all that is due by an open invoice was paid."""
    key = idempotency_key or secrets.token_hex(16)
    return _ended(await run.api.pay_invoice(invoice, reference=reference, idempotency_key=key))


@platform_command(invoices, "void")
async def void(run: CommandRun, invoice: Invoice, reason: Reason) -> CommandOutput:
    """Claim nothing by an open invoice any more; what was used is not billed anew."""
    return _ended(await run.api.void_invoice(invoice, reason=reason))


@platform_command(invoices, "write-off")
async def write_off(run: CommandRun, invoice: Invoice, reason: Reason) -> CommandOutput:
    """Give up what is due by an open invoice: it is uncollectible."""
    return _ended(await run.api.write_off_invoice(invoice, reason=reason))


async def trial_balance(run: CommandRun) -> CommandOutput:
    """Show the sum of every account of the journal, over all organizations."""
    found = await run.api.trial_balance()
    rows = [*((one.name, dollars(one.amount)) for one in found.accounts), ("total", dollars(found.total))]
    return CommandOutput(found, table(("ACCOUNT", "BALANCE"), rows))


def _ended(found: InvoiceInfo) -> CommandOutput:
    return CommandOutput(found, f"Invoice {found.number} is {found.state}: {dollars(found.amount_due)}.")
