"""Credit notes: each takes back what its charges were corrected by, and stands in the journal as it is."""

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard_billing.invoice_tables import CreditNote, CreditNoteLine, CreditNoteNumbers
from tokenyard_billing.ledger.journal import CREDIT_NOTE, AccountName
from tokenyard_billing.proof.checks.comparison import EXAMPLES, Side, broken, compare
from tokenyard_billing.proof.checks.issued_invoices import check_numbers
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import Charge, Entry, Transaction

_ISSUED = CreditNote.issued_at_ms.is_not(None)


async def check_credit_notes(session: AsyncSession) -> list[Difference]:
    """Of every credit note: total = charges; of an issued one: total = lines = what it lowered and credited."""
    totals = select(CreditNote.id, CreditNote.total)
    charges = select(Charge.credit_note, -Charge.amount).where(Charge.credit_note.is_not(None))
    found = await compare(session, "credit_note_not_charges", Side("credit note", totals), Side("charges", charges))
    return [
        *found,
        *await _lines(session),
        *await _money(session),
        *await _reversals(session),
        *await check_numbers(session, "credit_note_numbers_gap", CreditNote, CreditNoteNumbers),
    ]


async def _lines(session: AsyncSession) -> list[Difference]:
    """Compare by month of use, model and price, so that errors of two lines do not cancel."""
    line = CreditNoteLine.usage_period, CreditNoteLine.model, CreditNoteLine.price, CreditNoteLine.amount
    written = select(CreditNoteLine.credit_note, *line)
    charged = (
        select(CreditNote.id, Charge.period, Charge.model, Charge.price, -Charge.amount)
        .join(Charge, Charge.credit_note == CreditNote.id)
        .where(_ISSUED)
    )
    return await compare(session, "credit_note_not_lines", Side("charges", charged), Side("lines", written), keys=4)


async def _money(session: AsyncSession) -> list[Difference]:
    columns = CreditNote.id, CreditNote.total, CreditNote.lowered, CreditNote.credited
    uneven = or_(
        CreditNote.total != CreditNote.lowered + CreditNote.credited, CreditNote.lowered < 0, CreditNote.credited < 0
    )
    found = [
        broken("credit_note_not_settled", note, f"total {total}, lowered {lowered}, credited {credited}")
        for note, total, lowered, credited in await session.execute(
            select(*columns).where(_ISSUED, uneven).order_by(CreditNote.id).limit(EXAMPLES)
        )
    ]
    lowered = select(CreditNote.id, CreditNote.lowered_account, CreditNote.lowered).where(CreditNote.lowered != 0)
    posted = (
        select(Transaction.reference, Entry.account, Entry.amount)
        .join(Transaction, Transaction.id == Entry.transaction)
        .where(Transaction.template == CREDIT_NOTE, Entry.account != AccountName.WALLET)
    )
    sides = Side("credit note", lowered), Side("journal", posted)
    return found + await compare(session, "credit_note_not_journal", *sides, keys=2)


async def _reversals(session: AsyncSession) -> list[Difference]:
    """What undoes a charge is that charge, negated."""
    undone = select(Charge.reverses, -Charge.amount).where(Charge.reverses.is_not(None))
    reverses = select(Charge.reverses).where(Charge.reverses.is_not(None))
    charged = select(Charge.charge_key, Charge.amount).where(Charge.charge_key.in_(reverses))
    sides = Side("reversal", undone), Side("charge", charged)
    return await compare(session, "reversal_not_charge", *sides)
