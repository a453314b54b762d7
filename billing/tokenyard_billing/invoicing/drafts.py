"""Draws an organization's stale invoices from the charges of their periods, and writes them down."""

from collections.abc import Mapping, Sequence
from itertools import chain, groupby

import msgspec
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage import bulk
from tokenyard_billing.calendars import load_calendar
from tokenyard_billing.charging.charges import billed_by
from tokenyard_billing.invoice_tables import CreditNote, Invoice, InvoiceLine, StaleInvoice
from tokenyard_billing.periods import BillingCalendar
from tokenyard_billing.pricing.prices import PriceList, RatedLine, rated_lines
from tokenyard_billing.tables import COUNTS, Charge, CreditGrant
from tokenyard_billing.taxes.amounts import UNTAXED, LineTax, spread_over_groups, tax_of
from tokenyard_billing.taxes.terms import TaxProfile, TaxTerms, load_tax_terms

DRAFT = "draft"
_SUMMED = [getattr(Charge, name) for name in (*COUNTS, "amount")]


class InvoiceMismatch(AssertionError):
    """Lines do not sum to charges, or credit was spent twice: the books are wrong, and no invoice may hide it."""


class InvoiceIsFinal(AssertionError):
    """It was issued: nothing of it is ever written again but its state."""


class StoredInvoice(msgspec.Struct, frozen=True):
    """What a draw needs to know of an invoice that is written down."""

    period: str
    state: str
    credit_applied: int
    drafted_at_ms: int


class DrawnLine(msgspec.Struct, frozen=True):
    """One line, and the period in which that was used; `tax` is that of what `credit_applied` leaves of it."""

    usage_period: str
    rated: RatedLine
    credit_applied: NanoDollars = NanoDollars(0)
    how: LineTax = UNTAXED

    @property
    def tax(self) -> NanoDollars:
        return tax_of(NanoDollars(self.rated.amount - self.credit_applied), self.how)


class DrawnInvoice(msgspec.Struct, frozen=True):
    """One invoice; money in nano-dollars, `start_ms` and `end_ms` are those of its period."""

    organization: OrganizationId
    period: str
    time_zone: str
    start_ms: int
    end_ms: int
    lines: Sequence[DrawnLine]
    total: NanoDollars
    credit_applied: NanoDollars
    profile: TaxProfile
    drafted_at_ms: int


class Drafts(msgspec.Struct, frozen=True):
    """Invoices drawn anew, and what was read before: the marks by period, and the drafts that these replace."""

    organization: OrganizationId
    marks: Mapping[str, int]
    stored: Sequence[StoredInvoice]
    invoices: Sequence[DrawnInvoice]


def invoice_id(organization: str, period: str) -> str:
    """Return the id of the organization's invoice of a period: there is one, and it keeps its id."""
    return f"inv_{organization.removeprefix('org_')}_{period}"


async def draw(session: AsyncSession, organization: OrganizationId, prices: PriceList, now_ms: int) -> Drafts:
    """Draw the marked invoices, and every later stored one: its credit moves with theirs.

    What is closed stays as it is: its mark is that of the first open period.

    Raises:
        InvoiceMismatch: the books are wrong.
        UnknownPrice: a charge has a price that no installed card has.
    """
    # Marks come first: what commits after they were read changes one, and is drawn the next time.
    marks = await _marks(session, organization)
    calendar = await load_calendar(session, organization)
    stored = await _stored(session, organization)
    if not marks:
        return Drafts(organization, marks, stored, [])
    terms = await load_tax_terms(session, organization)
    invoices: list[DrawnInvoice] = []
    marked = {calendar.open_period(period) for period in marks}
    first = min(marked)
    used = sum(one.credit_applied for one in stored if one.period < first)
    for period in sorted(marked | {one.period for one in stored if one.period > first}):
        lines = await drawn_lines(session, billed_by(organization, period), prices, f"{organization} {period}")
        if lines is None:  # credit was granted in a month without charges
            continue
        start_ms, end_ms = calendar.start_ms(period), calendar.end_ms(period)
        total = NanoDollars(sum(line.rated.amount for line in lines))
        credit = await _granted(session, organization, end_ms) - used
        if credit < 0:
            raise InvoiceMismatch(f"{organization} {period}: {-credit} nano-dollars of credit were spent twice")
        applied = NanoDollars(min(credit, total))
        used += applied
        zone = calendar.time_zone(period)
        taxed = _taxed(lines, applied, terms, calendar)
        amounts = total, applied, terms.profile(period)
        invoices.append(DrawnInvoice(organization, period, zone, start_ms, end_ms, taxed, *amounts, now_ms))
    return Drafts(organization, marks, stored, invoices)


async def keep(session: AsyncSession, drafts: Drafts) -> None:
    """Write `drafts` down, unless another worker did meanwhile; delete the marks that are still what was read.

    The caller's transaction is the only one that writes the organization's invoices.

    Raises:
        InvoiceIsFinal: one of them was issued.
    """
    organization = drafts.organization
    if await _stored(session, organization) != drafts.stored:
        return
    final = {one.period for one in drafts.stored if one.state != DRAFT}
    if issued := final & {drawn.period for drawn in drafts.invoices}:
        raise InvoiceIsFinal(f"{organization}: the invoices of {', '.join(sorted(issued))} were issued")
    for drawn in drafts.invoices:
        await _write(session, drawn)
    for period, marks in drafts.marks.items():
        mark = (StaleInvoice.organization == organization) & (StaleInvoice.period == period)
        await session.execute(delete(StaleInvoice).where(mark, StaleInvoice.marks == marks))


async def _marks(session: AsyncSession, organization: OrganizationId) -> dict[str, int]:
    query = select(StaleInvoice.period, StaleInvoice.marks).where(StaleInvoice.organization == organization)
    return {period: marks for period, marks in await session.execute(query)}


async def _stored(session: AsyncSession, organization: OrganizationId) -> list[StoredInvoice]:
    columns = Invoice.period, Invoice.state, Invoice.credit_applied, Invoice.drafted_at_ms
    query = select(*columns).where(Invoice.organization == organization).order_by(Invoice.period)
    return [StoredInvoice(*row) for row in await session.execute(query)]


async def drawn_lines(
    session: AsyncSession, charges: ColumnElement[bool], prices: PriceList, subject: str
) -> list[DrawnLine] | None:
    """Return the lines of `charges`, the newest usage first, or None where there are no charges.

    Raises:
        InvoiceMismatch: the books of `subject` are wrong.
        UnknownPrice: a charge has a price that no installed card has.
    """
    query = (
        select(Charge.period, Charge.model, Charge.price, *(func.sum(column) for column in _SUMMED))
        .where(charges)
        .group_by(Charge.period, Charge.model, Charge.price)
        .order_by(Charge.period.desc(), Charge.model, Charge.price)
    )
    found = (await session.execute(query)).all()
    lines: list[DrawnLine] = []
    charged = 0
    for used_in, model, price, *sums in found:
        *counts, amount = map(int, sums)
        charged += amount
        rated = rated_lines(model, prices.by_id(price), **dict(zip(COUNTS, counts, strict=True)))
        lines += [DrawnLine(used_in, line) for line in rated]
    total = sum(line.rated.amount for line in lines)
    if total != charged:
        raise InvoiceMismatch(f"{subject}: lines sum to {total}, charges to {charged} nano-dollars")
    return lines if found else None


def line_rows(lines: Sequence[DrawnLine], **of: str) -> list[dict[str, object]]:
    """Return the rows of the lines of one document, which `of` names."""
    return [
        {
            **of,
            "number": number,
            "usage_period": line.usage_period,
            "amount": line.rated.amount,
            "credit_applied": line.credit_applied,
            "tax_name": line.how.name,
            "tax_rate": line.how.rate,
            "tax_inclusive": line.how.inclusive,
            "tax": line.tax,
            **msgspec.structs.asdict(line.rated),
        }
        for number, line in enumerate(lines)
    ]


def _taxed(
    lines: Sequence[DrawnLine], credit: NanoDollars, terms: TaxTerms, calendar: BillingCalendar
) -> list[DrawnLine]:
    """Let credit pay for lines in their order, and tax what it leaves of each as of the period in which it was used."""
    used = groupby(lines, key=lambda line: line.usage_period)
    paid = chain.from_iterable(spread_over_groups(credit, [[line.rated.amount for line in own] for _, own in used]))
    hows = [terms.tax(line.usage_period, calendar.end_ms(line.usage_period)) for line in lines]
    return [
        DrawnLine(line.usage_period, line.rated, part, how) for line, part, how in zip(lines, paid, hows, strict=True)
    ]


async def _granted(session: AsyncSession, organization: OrganizationId, end_ms: int) -> int:
    """Return all credit before the period's end: what was granted, and what was paid and taken back since."""
    granted = select(func.sum(CreditGrant.amount)).where(
        CreditGrant.organization == organization, CreditGrant.granted_at_ms < end_ms
    )
    taken_back = select(func.sum(CreditNote.credited)).where(
        CreditNote.organization == organization, CreditNote.issued_at_ms < end_ms
    )
    return int(await session.scalar(granted) or 0) + int(await session.scalar(taken_back) or 0)


async def _write(session: AsyncSession, drawn: DrawnInvoice) -> None:
    identity = invoice_id(drawn.organization, drawn.period)
    tax = sum(line.tax for line in drawn.lines)
    included = sum(line.tax for line in drawn.lines if line.how.inclusive)
    changes = {
        "time_zone": drawn.time_zone,
        "period_start_ms": drawn.start_ms,
        "period_end_ms": drawn.end_ms,
        "total": drawn.total,
        "credit_applied": drawn.credit_applied,
        "tax": tax,
        "tax_included": included,
        "rounding": 0,
        "amount_due": drawn.total - drawn.credit_applied + tax - included,
        "tax_jurisdiction": drawn.profile.jurisdiction,
        "tax_exemption": drawn.profile.exemption,
        "tax_reason": drawn.profile.reason,
        "drafted_at_ms": drawn.drafted_at_ms,
    }
    head = {"id": identity, "organization": drawn.organization, "period": drawn.period, "state": DRAFT}
    statement = bulk.upsert(session, Invoice).values(head | changes)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changes))
    await session.execute(delete(InvoiceLine).where(InvoiceLine.invoice == identity))
    await bulk.insert(session, InvoiceLine, line_rows(drawn.lines, invoice=identity))
