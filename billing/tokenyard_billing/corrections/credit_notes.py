"""Issues the credit notes of a correction: each with its lines, a number, and where its money goes."""

from collections.abc import Mapping

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage import bulk
from tokenyard.storage.database import AuditLog
from tokenyard_billing.calendars import load_calendars
from tokenyard_billing.invoice_tables import Correction, CreditNote, CreditNoteLine, CreditNoteNumbers, Invoice
from tokenyard_billing.invoicing.closing import PAID, ClosingTerms, next_number
from tokenyard_billing.invoicing.drafts import DrawnLine, InvoiceMismatch, drawn_lines, line_rows
from tokenyard_billing.invoicing.settling import UNCOLLECTIBLE, VOID
from tokenyard_billing.invoicing.store import OPEN
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.stale_invoices import mark_stale
from tokenyard_billing.tables import Charge

LOWERED: Mapping[str, AccountName] = {
    OPEN: AccountName.RECEIVABLE,
    VOID: AccountName.ADJUSTMENTS,
    UNCOLLECTIBLE: AccountName.WRITTEN_OFF,
}
"""Where what was due of an invoice stands, by its state; what was paid stands nowhere, and is credit again."""


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
        await _write_lines(session, note, prices)
        await _settle(session, note, correction.actor, now_ms)
    if any(note.credited for note in notes):
        organization = OrganizationId(correction.organization)
        calendar = (await load_calendars(session, [organization]))[organization]
        await mark_stale(session, [(organization, calendar.period_of(now_ms))])
    for note in notes:
        note.issuer, note.issued_at_ms = terms.issuer, now_ms
        # Last, as with invoices: the issuer's row is locked from here to the commit.
        note.sequence = await next_number(session, CreditNoteNumbers, terms.issuer)
        note.number = f"{terms.credit_note_prefix}-{note.sequence:06d}"
        _note_issued(session, note, correction.actor, audit, now_ms)


async def _write_lines(session: AsyncSession, note: CreditNote, prices: PriceList) -> None:
    """Write what its charges took back; the charges are below 0, and the lines above."""
    found = await drawn_lines(session, Charge.credit_note == note.id, prices, note.id)
    lines = [
        DrawnLine(line.usage_period, msgspec.structs.replace(line.rated, quantity=-line.rated.quantity))
        for line in found
    ]
    if (total := sum(line.rated.amount for line in lines)) != note.total:
        raise InvoiceMismatch(f"{note.id}: lines sum to {total}, and it to {note.total} nano-dollars")
    await bulk.insert(session, CreditNoteLine, line_rows(lines, credit_note=note.id))


async def _settle(session: AsyncSession, note: CreditNote, actor: str, now_ms: int) -> None:
    """Lower what its invoice claims, or claimed, as far as that goes; the rest stays in the wallet, as credit."""
    invoice = (await session.scalars(select(Invoice).where(Invoice.id == note.invoice).with_for_update())).one()
    due = invoice.amount_due - await _lowered_before(session, note)
    account = LOWERED.get(invoice.state)
    note.lowered = 0 if account is None else min(note.total, due)
    note.credited = note.total - note.lowered
    if not note.lowered or account is None:
        return
    note.lowered_account = account.value
    posting = journal.credit_note_issued(
        OrganizationId(note.organization),
        NanoDollars(note.lowered),
        account,
        reference=note.id,
        reason=note.reason,
        actor=actor,
    )
    await journal.post(session, [posting], now_ms)
    if invoice.state == OPEN and note.lowered == due:
        invoice.state = PAID


async def _lowered_before(session: AsyncSession, note: CreditNote) -> int:
    query = select(func.sum(CreditNote.lowered)).where(CreditNote.invoice == note.invoice, CreditNote.id != note.id)
    return int(await session.scalar(query) or 0)


def _note_issued(session: AsyncSession, note: CreditNote, actor: str, audit: AuditLog, now_ms: int) -> None:
    details: dict[str, object] = {
        "number": note.number,
        "invoice": note.invoice,
        "lowered": note.lowered,
        "credited": note.credited,
        "reason": note.reason,
    }
    audit(
        *(session, OrganizationId(note.organization), ApiKeyId(actor), "credit_note.issued", note.id),
        at=now_ms // 1000,
        details=details,
        before={},
    )
