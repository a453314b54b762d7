"""`tokenyard issuer`, `org billing-details`, `invoices pdf` and `proof`: who bills whom, and what says so."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tokenyard.cli.command import CommandFailed, CommandRun, platform_command
from tokenyard.cli.output import CommandOutput, described
from tokenyard.clients.platform_api.party_shapes import PartyInfo

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="NAME=VALUE, such as country=DE; may be given again. An empty value takes one away."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="The file to write; default: named by the id.", dir_okay=False)
]


def document_commands(
    app: typer.Typer, organizations: typer.Typer, invoices: typer.Typer, credit_notes: typer.Typer
) -> None:
    platform_command(app, "issuer")(issuer)
    platform_command(organizations, "billing-details")(billing_details)
    platform_command(invoices, "pdf")(pdf)
    platform_command(invoices, "proof")(proof)
    platform_command(credit_notes, "pdf")(credit_note_pdf)


async def issuer(run: CommandRun, changes: Changes = None) -> CommandOutput:
    """Show who issues the invoices, and how these are paid; change what is given for those from now on."""
    found = await run.api.issuer()
    if changes:
        found = await run.api.replace_issuer(changed_details(found, changes))
    return described(found)


async def billing_details(
    run: CommandRun,
    organization: Annotated[str, typer.Argument(help="Its id or slug.")],
    changes: Changes = None,
) -> CommandOutput:
    """Show how an organization is named on its invoices; change what is given for those from now on."""
    found = await run.api.billing_details(organization)
    if changes:
        found = await run.api.replace_billing_details(organization, changed_details(found, changes))
    return described(found)


async def pdf(
    run: CommandRun,
    invoice: Annotated[str, typer.Argument(help="Its id, inv_...")],
    output: Output = None,
) -> CommandOutput:
    """Write an invoice to a PDF file; a draft is marked as one."""
    return await _written(await run.api.invoice_pdf(invoice), invoice, output or Path(f"{invoice}.pdf"))


async def proof(
    run: CommandRun,
    invoice: Annotated[str, typer.Argument(help="Its id, inv_...")],
    output: Output = None,
) -> CommandOutput:
    """Write all that proves an issued invoice to a zip file, for billing/verifier/verify_invoice.py."""
    return await _written(await run.api.invoice_proof(invoice), invoice, output or Path(f"{invoice}-proof.zip"))


async def credit_note_pdf(
    run: CommandRun, credit_note: Annotated[str, typer.Argument(help="Its id, cn_...")], output: Output = None
) -> CommandOutput:
    """Write a credit note to a PDF file."""
    content = await run.api.credit_note_pdf(credit_note)
    return await _written(content, credit_note, output or Path(f"{credit_note}.pdf"))


async def _written(content: bytes, document: str, path: Path) -> CommandOutput:
    try:
        await asyncio.to_thread(path.write_bytes, content)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror}.") from None
    return CommandOutput({"document": document, "file": str(path), "bytes": len(content)}, f"Written to {path}.")


def changed_details(found: PartyInfo, changes: Sequence[str]) -> dict[str, str]:
    """Return all details as they are to be, or raise `CommandFailed`."""
    details = dict(found.details or {})
    for text in changes:
        name, stated, value = text.partition("=")
        if not stated:
            raise CommandFailed(f"--set is {text!r}; it must be like country=DE.")
        details[name.strip()] = value
    return details
