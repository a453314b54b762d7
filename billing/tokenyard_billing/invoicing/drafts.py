"""Draws an organization's stale invoices from the charges of their periods, and writes them down."""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage import bulk
from tokenyard_billing.periods import TIME_ZONE, period_end_ms
from tokenyard_billing.pricing.prices import PriceList, RatedLine, rated_lines
from tokenyard_billing.tables import COUNTS, Charge, CreditGrant, Invoice, InvoiceLine, StaleInvoice

DRAFT = "draft"
_SUMMED = [getattr(Charge, name) for name in (*COUNTS, "amount")]


class InvoiceMismatch(AssertionError):
    """Lines do not sum to charges, or credit was spent twice: the books are wrong, and no invoice may hide it."""


class StoredDraft(msgspec.Struct, frozen=True):
    """What a draw needs to know of an invoice that is written down."""

    period: str
    credit_applied: int
    drafted_at_ms: int


class DrawnInvoice(msgspec.Struct, frozen=True):
    """One invoice; money in nano-dollars."""

    organization: OrganizationId
    period: str
    lines: Sequence[RatedLine]
    total: NanoDollars
    credit_applied: NanoDollars
    drafted_at_ms: int


class Drafts(msgspec.Struct, frozen=True):
    """Invoices drawn anew, and what was read before: the marks by period, and the drafts that these replace."""

    organization: OrganizationId
    marks: Mapping[str, int]
    stored: Sequence[StoredDraft]
    invoices: Sequence[DrawnInvoice]


def invoice_id(organization: str, period: str) -> str:
    """Return the id of the organization's invoice of a period: there is one, and it keeps its id."""
    return f"inv_{organization.removeprefix('org_')}_{period}"


async def draw(session: AsyncSession, organization: OrganizationId, prices: PriceList, now_ms: int) -> Drafts:
    """Draw the marked invoices, and every later stored one: its credit moves with theirs.

    Raises:
        InvoiceMismatch: the books are wrong.
        UnknownPrice: a charge has a price that no installed card has.
    """
    # Marks come first: what commits after they were read changes one, and is drawn the next time.
    marks = await _marks(session, organization)
    stored = await _stored(session, organization)
    if not marks:
        return Drafts(organization, marks, stored, [])
    invoices: list[DrawnInvoice] = []
    first = min(marks)
    used = sum(draft.credit_applied for draft in stored if draft.period < first)
    for period in sorted(marks.keys() | {draft.period for draft in stored if draft.period > first}):
        lines = await _lines(session, organization, period, prices)
        if lines is None:  # credit was granted in a month without charges
            continue
        total = NanoDollars(sum(line.amount for line in lines))
        credit = await _granted(session, organization, period) - used
        if credit < 0:
            raise InvoiceMismatch(f"{organization} {period}: {-credit} nano-dollars of credit were spent twice")
        applied = NanoDollars(min(credit, total))
        used += applied
        invoices.append(DrawnInvoice(organization, period, lines, total, applied, now_ms))
    return Drafts(organization, marks, stored, invoices)


async def keep(session: AsyncSession, drafts: Drafts) -> None:
    """Write `drafts` down, unless another worker did meanwhile; delete the marks that are still what was read.

    The caller's transaction is the only one that writes the organization's invoices.
    """
    organization = drafts.organization
    if await _stored(session, organization) != drafts.stored:
        return
    for drawn in drafts.invoices:
        await _write(session, drawn)
    for period, marks in drafts.marks.items():
        mark = (StaleInvoice.organization == organization) & (StaleInvoice.period == period)
        await session.execute(delete(StaleInvoice).where(mark, StaleInvoice.marks == marks))


async def _marks(session: AsyncSession, organization: OrganizationId) -> dict[str, int]:
    query = select(StaleInvoice.period, StaleInvoice.marks).where(StaleInvoice.organization == organization)
    return {period: marks for period, marks in await session.execute(query)}


async def _stored(session: AsyncSession, organization: OrganizationId) -> list[StoredDraft]:
    columns = Invoice.period, Invoice.credit_applied, Invoice.drafted_at_ms
    query = select(*columns).where(Invoice.organization == organization).order_by(Invoice.period)
    return [StoredDraft(*row) for row in await session.execute(query)]


async def _lines(
    session: AsyncSession, organization: OrganizationId, period: str, prices: PriceList
) -> list[RatedLine] | None:
    query = (
        select(Charge.model, Charge.price, *(func.sum(column) for column in _SUMMED))
        .where(Charge.organization == organization, Charge.period == period)
        .group_by(Charge.model, Charge.price)
        .order_by(Charge.model, Charge.price)
    )
    found = (await session.execute(query)).all()
    lines: list[RatedLine] = []
    charged = 0
    for model, price, *sums in found:
        *counts, amount = map(int, sums)
        charged += amount
        lines += rated_lines(model, prices.by_id(price), **dict(zip(COUNTS, counts, strict=True)))
    total = sum(line.amount for line in lines)
    if total != charged:
        raise InvoiceMismatch(f"{organization} {period}: lines sum to {total}, charges to {charged} nano-dollars")
    return lines if found else None


async def _granted(session: AsyncSession, organization: OrganizationId, period: str) -> int:
    """Return all credit that was granted before the period's end."""
    query = select(func.sum(CreditGrant.amount)).where(
        CreditGrant.organization == organization, CreditGrant.granted_at_ms < period_end_ms(period, TIME_ZONE)
    )
    return int(await session.scalar(query) or 0)


async def _write(session: AsyncSession, drawn: DrawnInvoice) -> None:
    identity = invoice_id(drawn.organization, drawn.period)
    changes = {
        "total": drawn.total,
        "credit_applied": drawn.credit_applied,
        "amount_due": drawn.total - drawn.credit_applied,
        "drafted_at_ms": drawn.drafted_at_ms,
    }
    head = {"id": identity, "organization": drawn.organization, "period": drawn.period, "time_zone": TIME_ZONE}
    statement = bulk.upsert(session, Invoice).values(head | changes | {"state": DRAFT})
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changes))
    await session.execute(delete(InvoiceLine).where(InvoiceLine.invoice == identity))
    rows = [
        {"invoice": identity, "number": number, "amount": line.amount, **msgspec.structs.asdict(line)}
        for number, line in enumerate(drawn.lines)
    ]
    await bulk.insert(session, InvoiceLine, rows)
