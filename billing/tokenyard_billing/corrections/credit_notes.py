"""Issues the credit notes of a correction: each with its lines, a number, and where its money goes."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import Millionths, NanoDollars
from tokenyard.storage import bulk
from tokenyard.storage.database import AuditLog
from tokenyard_billing.calendars import load_calendars
from tokenyard_billing.invoice_tables import (
    Correction,
    CreditNote,
    CreditNoteLine,
    CreditNoteNumbers,
    Invoice,
    InvoiceLine,
)
from tokenyard_billing.invoicing.closing import PAID, ClosingTerms, next_number
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
    """Of an invoice: its charges that no credit paid, and what is due for them."""

    billed: int
    due: int


async def issue(
    session: AsyncSession,
    correction: Correction,
    *,
    prices: PriceList,
    terms: ClosingTerms,
    audit: AuditLog,
    now_ms: int,
) -> None:
    """Issue the credit notes of a correction that has corrected all its charges.

    Raises:
        InvoiceMismatch: the books are wrong.
        UnknownPrice: a charge has a price that no installed card has.
    """
    query = select(CreditNote).where(CreditNote.correction == correction.id).order_by(CreditNote.id)
    notes = (await session.scalars(query)).all()
    for note in notes:
        await _settle(session, note, prices, terms, now_ms=now_ms, actor=correction.actor)
    if any(note.credited for note in notes):
        organization = OrganizationId(correction.organization)
        calendar = (await load_calendars(session, [organization]))[organization]
        await mark_stale(session, [(organization, calendar.period_of(now_ms))])
    for note in notes:
        note.issuer, note.issued_at_ms = terms.issuer, now_ms
        await keep_parties(session, note.id, OrganizationId(note.organization), terms.issuer)
        # Last, as with invoices: the issuer's row is locked from here to the commit.
        note.sequence = await next_number(session, CreditNoteNumbers, terms.issuer)
        note.number = f"{terms.credit_note_prefix}-{note.sequence:06d}"
        _note_issued(session, note, correction.actor, audit, now_ms)


async def _settle(
    session: AsyncSession, note: CreditNote, prices: PriceList, terms: ClosingTerms, *, now_ms: int, actor: str
) -> None:
    """Lower what its invoice claims, or claimed, as far as that goes; the rest stays in the wallet, as credit."""
    invoice = (await session.scalars(select(Invoice).where(Invoice.id == note.invoice).with_for_update())).one()
    left = await _left(session, invoice, note)
    account = LOWERED.get(invoice.state)
    note.lowered = 0 if account is None else min(note.total, left.billed)
    note.credited = note.total - note.lowered
    await _write_lines(session, note, prices)
    if not note.lowered or account is None:
        return
    exact = NanoDollars(note.lowered + note.tax - note.tax_included)
    note.due_lowered = left.due if note.lowered == left.billed else min(rounded_to(exact, terms.payable), left.due)
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


async def _write_lines(session: AsyncSession, note: CreditNote, prices: PriceList) -> None:
    """Write what its charges took back, taxed as the invoice was; the charges are below 0, and the lines above.

    What is credit again is not taxed: credit lowers what the next invoices tax.
    """
    found = await drawn_lines(session, Charge.credit_note == note.id, prices, note.id)
    rated = [msgspec.structs.replace(line.rated, quantity=-line.rated.quantity) for line in found]
    if (total := sum(line.amount for line in rated)) != note.total:
        raise InvoiceMismatch(f"{note.id}: lines sum to {total}, and it to {note.total} nano-dollars")
    hows = await _hows(session, note.invoice)
    parts = spread_credit(NanoDollars(note.credited), [line.amount for line in rated])
    lines = [
        DrawnLine(line.usage_period, own, part, hows.get(line.usage_period, UNTAXED))
        for line, own, part in zip(found, rated, parts, strict=True)
    ]
    note.tax = sum(line.tax for line in lines) if note.lowered else 0
    note.tax_included = sum(line.tax for line in lines if line.how.inclusive) if note.lowered else 0
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
    sums = func.coalesce(func.sum(CreditNote.lowered), 0), func.coalesce(func.sum(CreditNote.due_lowered), 0)
    earlier = select(*sums).where(CreditNote.invoice == invoice.id, CreditNote.id != note.id)
    lowered, due_lowered = map(int, (await session.execute(earlier)).one())
    return _Left(invoice.total - invoice.credit_applied - lowered, invoice.amount_due - due_lowered)


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
