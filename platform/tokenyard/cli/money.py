"""`tokenyard usage`, `invoice`, `request`, `credit` and `reconcile`. Amounts are nano-dollars in `--json`."""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from tokenyard.cli.call import Call, CommandFailed
from tokenyard.cli.command import platform_command
from tokenyard.cli.output import Shown, details, dollars, moment, table
from tokenyard.cli.story import story
from tokenyard.core.money import InexactAmount, from_dollars

credit = typer.Typer(help="Prepaid credit.", no_args_is_help=True)

Organization = Annotated[str, typer.Argument(help="The organization's id or slug.")]
Month = Annotated[str | None, typer.Option(help="YYYY-MM; default: this month.")]

USAGE_COLUMNS = {
    "model": "MODEL",
    "requests": "REQUESTS",
    "prompt_tokens": "INPUT",
    "cached_tokens": "CACHED",
    "completion_tokens": "OUTPUT",
    "trained_tokens": "TRAINED",
    "cost": "COST",
}
LINE_COLUMNS = {"model": "MODEL", "kind": "WHAT", "quantity": "TOKENS", "rate_shown": "RATE", "cost": "AMOUNT"}


def this_month() -> str:
    return datetime.now(UTC).strftime("%Y-%m")


def money_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    platform_command(app, "usage")(usage)
    platform_command(app, "invoice")(invoice)
    platform_command(app, "request")(request)
    platform_command(app, "reconcile")(reconcile)


async def usage(call: Call, organization: Organization, month: Month = None) -> Shown:
    """Show an organization's usage of a month by model."""
    found = await usage_of(call, organization, month or this_month())
    return Shown(found, usage_text(found))


async def usage_of(call: Call, organization: str, month: str) -> dict[str, Any]:
    owner = await call.organization(organization)
    found: dict[str, Any] = await call.api.get(f"/admin/organizations/{owner['id']}/usage", month=month)
    return found


def usage_text(found: dict[str, Any]) -> str:
    rows = [{**row, "cost": dollars(row["amount"])} for row in found["data"]]
    return table(rows, USAGE_COLUMNS, empty="No usage yet.")


async def invoice(call: Call, organization: Organization, month: Month = None) -> Shown:
    """Show an organization's invoice of a month, line by line."""
    found = await invoice_of(call, organization, month or this_month())
    return Shown(found, invoice_text(found))


async def invoice_of(call: Call, organization: str, month: str) -> dict[str, Any]:
    """Return the invoice of the month, drawn up to now.

    Raises:
        CommandFailed: there is none.
    """
    owner = await call.organization(organization)
    listed = await call.api.get(f"/admin/organizations/{owner['id']}/invoices", month=month)
    for found in listed["data"]:
        if found["period"] == month:
            drawn: dict[str, Any] = found
            return drawn
    raise CommandFailed(f"{owner['slug']} has no invoice for {month}.")


def invoice_text(found: dict[str, Any]) -> str:
    rows = [
        {**line, "rate_shown": f"{dollars(line['rate'] * 1_000_000)} a million", "cost": dollars(line["amount"])}
        for line in found["lines"]
    ]
    head = f"Invoice {found['id']}, {found['period']}, {found['state']}"
    sums = "\n".join(
        f"{label:<16}{dollars(found[field])}"
        for label, field in (("Total", "total"), ("Paid by credit", "credit_applied"), ("Due", "amount_due"))
    )
    return f"{head}\n\n{table(rows, LINE_COLUMNS, empty='No lines.')}\n\n{sums}"


async def request(call: Call, request: Annotated[str, typer.Argument(help="The request's id, req_...")]) -> Shown:
    """Tell a request's whole story: attempts, both reports, charge, journal, invoice."""
    found = await call.api.get(f"/admin/requests/{request}")
    return Shown(found, story(found))


async def reconcile(call: Call) -> Shown:
    """Check the invariants of the money; exit with 1 where one is broken."""
    found = await call.api.post("/admin/reconcile")
    answer = Shown(found, details(found))
    if not found.get("ok", True):
        call.emit(found, answer.text)
        raise CommandFailed("The books do not agree; see above.")
    return answer


@platform_command(credit, "grant")
async def grant(
    call: Call,
    organization: Organization,
    amount: Annotated[str, typer.Argument(help="Dollars, such as 25 or 0.50.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the journal.")],
    idempotency_key: Annotated[str | None, typer.Option(help="The same key never grants twice.")] = None,
) -> Shown:
    """Give an organization credit."""
    try:
        nano = from_dollars(amount)
    except InexactAmount as error:
        raise CommandFailed(f"{amount!r} is no amount: {error}.") from None
    owner = await call.organization(organization)
    body = {"amount": nano, "reason": reason, "idempotency_key": idempotency_key or secrets.token_hex(16)}
    granted = await call.api.post(f"/admin/organizations/{owner['id']}/credits", body)
    return Shown(granted, f"{owner['slug']} has {dollars(nano)} more credit.")


@platform_command(credit, "list")
async def grants(call: Call, organization: Organization) -> Shown:
    """List the credit an organization was given."""
    owner = await call.organization(organization)
    found = (await call.api.get(f"/admin/organizations/{owner['id']}/credits"))["data"]
    rows = [{**row, "amount": dollars(row["amount"]), "at": moment(row["granted_at_ms"] / 1000)} for row in found]
    return Shown(found, table(rows, {"at": "GRANTED", "amount": "AMOUNT", "reason": "REASON", "actor": "BY"}))
