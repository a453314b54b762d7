"""`tokenyard corrections` and `tokenyard credit-notes`: charges that are reversed or rated anew."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Annotated

import typer

from tokenyard.cli.command import CommandFailed, CommandRun, platform_command
from tokenyard.cli.output import CommandOutput, dollars, moment_ms, table
from tokenyard.clients.platform_api.correction_shapes import CorrectionInfo, PreviewInfo

corrections = typer.Typer(help="Reverse charges, or rate them anew by another card.", no_args_is_help=True)
credit_notes = typer.Typer(help="What corrections took back of issued invoices.", no_args_is_help=True)

PATIENCE_S = 120.0
PAUSE_S = 1.0

Owner = Annotated[str, typer.Argument(help="The organization's id or slug.")]
Request = Annotated[str | None, typer.Option(help="Only this request or job.")]
Period = Annotated[str | None, typer.Option(help="Only what was used in this period, YYYY-MM.")]
Since = Annotated[int | None, typer.Option(help="Only what was admitted from this moment on, unix milliseconds.")]
Until = Annotated[int | None, typer.Option(help="Only what was admitted before this moment, unix milliseconds.")]
Model = Annotated[str | None, typer.Option(help="Only of this model.")]
Project = Annotated[str | None, typer.Option(help="Only of this project's id.")]
Key = Annotated[str | None, typer.Option(help="Only of this key's id.")]
Card = Annotated[str | None, typer.Option(help="The rate card to rate by; without one, charges are reversed.")]


@platform_command(corrections, "apply")
async def apply(
    run: CommandRun,
    organization: Owner,
    *,
    request: Request = None,
    period: Period = None,
    since_ms: Since = None,
    until_ms: Until = None,
    model: Model = None,
    project: Project = None,
    key: Key = None,
    card: Card = None,
    reason: Annotated[str | None, typer.Option(help="Why: the journal keeps it, the tenant reads it.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show what would change, and change nothing.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key corrects once.")] = None,
) -> CommandOutput:
    """Correct the charges that meet all that is said, and wait until that is done."""
    wanted: Mapping[str, object] = {
        "request": request,
        "period": period,
        "since_ms": since_ms,
        "until_ms": until_ms,
        "model": model,
        "project": project,
        "key": key,
        "card": card,
    }
    if preview:
        return _preview(await run.api.preview_correction(organization, wanted))
    if reason is None:
        raise CommandFailed("Say why with --reason, or look at it first with --preview.")
    asked = await run.api.correct(
        organization, wanted, reason=reason, idempotency_key=idempotency_key or secrets.token_hex(16)
    )
    found = await _applied(run, asked)
    notes = [note for note in await run.api.credit_notes(organization=organization) if note.correction == found.id]
    numbers = "".join(f" Credit note {note.number} of {note.invoice}: {dollars(note.total)}." for note in notes)
    return CommandOutput(
        found, f"{found.charges} charges cost {dollars(found.lowered)} less and {dollars(found.raised)} more.{numbers}"
    )


@platform_command(corrections, "list")
async def listing(
    run: CommandRun,
    organization: Annotated[str | None, typer.Option(help="Only of this one: an id or slug.")] = None,
) -> CommandOutput:
    """List the newest corrections."""
    found = await run.api.corrections(organization)
    rows = [
        (
            *(one.id, one.organization, one.state, one.card or "reversed", one.charges),
            *(dollars(-one.lowered), dollars(one.raised), moment_ms(one.requested_at_ms), one.reason),
        )
        for one in found
    ]
    headings = ("ID", "ORGANIZATION", "STATE", "CARD", "CHARGES", "LESS", "MORE", "ASKED AT", "REASON")
    return CommandOutput(found, table(headings, rows))


@platform_command(credit_notes, "list")
async def notes(
    run: CommandRun,
    organization: Annotated[str | None, typer.Option(help="Only of this one: an id or slug.")] = None,
    invoice: Annotated[str | None, typer.Option(help="Only of this invoice, inv_...")] = None,
) -> CommandOutput:
    """List the newest credit notes."""
    found = await run.api.credit_notes(organization=organization, invoice=invoice)
    rows = [
        (
            *(one.number, one.organization, one.invoice, dollars(one.total), dollars(one.lowered)),
            *(dollars(one.credited), moment_ms(one.issued_at_ms), one.reason),
        )
        for one in found
    ]
    headings = ("NUMBER", "ORGANIZATION", "INVOICE", "TOTAL", "DUE LESS", "CREDIT", "ISSUED AT", "REASON")
    return CommandOutput(found, table(headings, rows))


async def _applied(run: CommandRun, found: CorrectionInfo) -> CorrectionInfo:
    """Return the correction once it is applied, or raise `CommandFailed` where that takes longer than `PATIENCE_S`."""
    for _ in range(round(PATIENCE_S / PAUSE_S)):
        if found.state == "applied":
            return found
        await asyncio.sleep(PAUSE_S)
        found = await run.api.correction(found.id)
    raise CommandFailed(f"{found.id} is not done yet; `tokenyard corrections list` tells when it is.")


def _preview(found: PreviewInfo) -> CommandOutput:
    rows = [
        (
            *(line.billed_in, "issued" if line.invoice_issued else "draft", line.usage_period, line.model, line.price),
            *(line.charges, dollars(line.amount), dollars(-line.lowered), dollars(line.raised)),
        )
        for line in found.lines
    ]
    headings = ("BILLED IN", "INVOICE", "USED IN", "MODEL", "PRICE", "CHARGES", "COST", "LESS", "MORE")
    return CommandOutput(found, table(headings, rows, empty="Nothing would change."))
