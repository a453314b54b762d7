"""Issues the credit notes of a correction: each with its lines, a number, and where its money goes."""

from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import Millionths, NanoDollars
from tokenyard.storage import bulk
from tokenyard.storage.database import AuditLog, EventLog
from tokenyard_billing.calendars import load_calendar
from tokenyard_billing.invoice_tables import (
    Correction,
    CreditNote,
    CreditNoteLine,
    CreditNoteNumbers,
    Invoice,
    InvoiceLine,
)
from tokenyard_billing.invoicing.closing import INVOICE_PAID, PAID, ClosingTerms, next_number
from tokenyard_billing.invoicing.drafts import DrawnLine, InvoiceMismatch, drawn_lines, line_rows
from tokenyard_billing.invoicing.settling import UNCOLLECTIBLE, VOID
from tokenyard_billing.invoicing.store import OPEN
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.parties.snapshots import keep_parties
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.stale_invoices import mark_stale
from tokenyard_billing.tables import Charge
from tokenyard_billing.taxes.amounts import UNTAXED, LineTax, rounded_to, spread_credit

LOWERED: Mapping[str, AccountName] = {
    OPEN: AccountName.RECEIVABLE,
    VOID: AccountName.ADJUSTMENTS,
    UNCOLLECTIBLE: AccountName.WRITTEN_OFF,
}
"""Where what was due of an invoice stands, by its state; what was paid stands nowhere, and is credit again."""


class _Left(NamedTuple):
    """What earlier credit notes have left of an invoice: of its charges that no credit paid, by the period of use.

    `exact` is what is due for them, and `due` what of that is claimed.
    """

    billed: Mapping[str, int]
    exact: int
    due: int


async def issue(
    session: AsyncSession,
    correction: Correction,
    *,
    prices: PriceList,
    terms: ClosingTerms,
    audit: AuditLog,
    events: EventLog,
    now_ms: int,
) -> None:
    """Issue the credit notes of a correction that has corrected all its charges.

    Raises:
        InvoiceMismatch: the books are wrong.
        UnknownPrice: a charge has a price that no installed card has.
    """
    query = select(CreditNote).where(CreditNote.correction == correction.id).order_by(CreditNote.id)
    notes = (await session.scalars(query)).all()
    # All of them before any balance, in one order: whoever settles an invoice locks it, and then balances.
    own = select(Invoice).where(Invoice.id.in_([note.invoice for note in notes])).order_by(Invoice.id)
    invoices = {invoice.id: invoice for invoice in await session.scalars(own.with_for_update())}
    for note in notes:
        invoice = invoices[note.invoice]
        was = invoice.state
        await _settle(session, note, invoice, prices, terms, now_ms=now_ms, actor=correction.actor)
        owner, data = OrganizationId(note.organization), {"id": note.id, "invoice": invoice.id}
        await events(session, owner, "credit_note.issued", data, at_ms=now_ms)
        if invoice.state != was:
            await events(session, owner, INVOICE_PAID, {"id": invoice.id}, at_ms=now_ms)
    if any(note.credited for note in notes):
        organization = OrganizationId(correction.organization)
        calendar = await load_calendar(session, organization)
        await mark_stale(session, [(organization, calendar.period_of(now_ms))])
    for note in notes:
        note.issuer, note.issued_at_ms = terms.issuer, now_ms
        await keep_parties(session, note.id, OrganizationId(note.organization), terms.issuer)
        # Last, as with invoices: the issuer's row is locked from here to the commit.
        note.sequence = await next_number(session, CreditNoteNumbers, terms.issuer)
        note.number = f"{terms.credit_note_prefix}-{note.sequence:06d}"
        _note_issued(session, note, correction.actor, audit, now_ms)


async def _settle(
    session: AsyncSession,
    note: CreditNote,
    invoice: Invoice,
    prices: PriceList,
    terms: ClosingTerms,
    *,
    now_ms: int,
    actor: str,
) -> None:
    """Lower what its invoice claims, or claimed, as far as that goes; the rest stays in the wallet, as credit."""
    left = await _left(session, invoice, note)
    account = LOWERED.get(invoice.state)
    await _write_lines(session, note, prices, {} if account is None else left.billed)
    if not note.lowered or account is None:
        return
    exact = note.lowered + note.tax - note.tax_included
    whole = note.lowered == sum(left.billed.values())
    # What stays due is rounded, not what is taken off: many small credit notes take off what they say.
    stays = 0 if whole else min(max(rounded_to(NanoDollars(left.exact - exact), terms.payable), 0), left.due)
    note.due_lowered = left.due - stays
    note.rounding = note.due_lowered - exact
    note.lowered_account = account.value
    posting = journal.credit_note_issued(
        OrganizationId(note.organization),
        NanoDollars(note.lowered),
        account,
        tax=NanoDollars(note.tax),
        tax_included=NanoDollars(note.tax_included),
        rounding=NanoDollars(note.rounding),
        reference=note.id,
        reason=note.reason,
        actor=actor,
    )
    await journal.post(session, [posting], now_ms)
    if invoice.state == OPEN and note.due_lowered == left.due:
        invoice.state = PAID


async def _write_lines(session: AsyncSession, note: CreditNote, prices: PriceList, left: Mapping[str, int]) -> None:
    """Write what its charges took back, taxed as the invoice was; the charges are below 0, and the lines above.

    What is `left` of the invoice's charges, by the period of use, is lowered; the rest is credit again. That is not
    taxed: credit lowers what the next invoices tax.
    """
    found = await drawn_lines(session, Charge.credit_note == note.id, prices, note.id) or []
    hows = await _hows(session, note.invoice)
    lines: list[DrawnLine] = []
    for period, own in groupby(found, key=lambda line: line.usage_period):
        rated = [msgspec.structs.replace(line.rated, quantity=-line.rated.quantity) for line in own]
        total = sum(line.amount for line in rated)
        credited = NanoDollars(total - min(total, left.get(period, 0)))
        parts = spread_credit(credited, [line.amount for line in rated])
        how = hows.get(period, UNTAXED) if credited < total else UNTAXED
        lines += [DrawnLine(period, line, part, how) for line, part in zip(rated, parts, strict=True)]
    if (total := sum(line.rated.amount for line in lines)) != note.total:
        raise InvoiceMismatch(f"{note.id}: lines sum to {total}, and it to {note.total} nano-dollars")
    note.credited = sum(line.credit_applied for line in lines)
    note.lowered = note.total - note.credited
    note.tax = sum(line.tax for line in lines)
    note.tax_included = sum(line.tax for line in lines if line.how.inclusive)
    await bulk.insert(session, CreditNoteLine, line_rows(lines, credit_note=note.id))


async def _hows(session: AsyncSession, invoice: str) -> dict[str, LineTax]:
    """Return how an invoice's lines are taxed, by the period of use."""
    columns = InvoiceLine.usage_period, InvoiceLine.tax_name, InvoiceLine.tax_rate, InvoiceLine.tax_inclusive
    query = select(*columns).where(InvoiceLine.invoice == invoice).distinct()
    return {
        period: LineTax(name, Millionths(rate), inclusive)
        for period, name, rate, inclusive in await session.execute(query)
    }


async def _left(session: AsyncSession, invoice: Invoice, note: CreditNote) -> _Left:
    """Return what earlier credit notes have left of an invoice."""
    billed = await _unpaid_by_credit(session, InvoiceLine, InvoiceLine.invoice == invoice.id)
    earlier = (CreditNote.invoice == invoice.id) & (CreditNote.id != note.id)
    notes = select(CreditNote.id).where(earlier)
    lowered = await _unpaid_by_credit(session, CreditNoteLine, CreditNoteLine.credit_note.in_(notes))
    left = {period: max(amount - lowered.get(period, 0), 0) for period, amount in billed.items()}
    columns = CreditNote.due_lowered, CreditNote.rounding
    sums = select(*(func.coalesce(func.sum(column), 0) for column in columns)).where(earlier)
    due_lowered, rounding = map(int, (await session.execute(sums)).one())
    exact = invoice.amount_due - invoice.rounding - (due_lowered - rounding)
    return _Left(left, exact, invoice.amount_due - due_lowered)


async def _unpaid_by_credit(
    session: AsyncSession, table: type[InvoiceLine | CreditNoteLine], wanted: ColumnElement[bool]
) -> dict[str, int]:
    """Return what lines come to without their credit, by the period of use."""
    query = select(table.usage_period, func.sum(table.amount - table.credit_applied)).where(wanted)
    return {period: int(amount) for period, amount in await session.execute(query.group_by(table.usage_period))}


def _note_issued(session: AsyncSession, note: CreditNote, actor: str, audit: AuditLog, now_ms: int) -> None:
    details: dict[str, object] = {
        "number": note.number,
        "invoice": note.invoice,
        "due_lowered": note.due_lowered,
        "credited": note.credited,
        "reason": note.reason,
    }
    audit(
        *(session, OrganizationId(note.organization), ApiKeyId(actor), "credit_note.issued", note.id),
        at=now_ms // 1000,
        details=details,
        before={},
    )
