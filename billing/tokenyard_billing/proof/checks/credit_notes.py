"""Credit notes: each takes back what its charges were corrected by, and stands in the journal as it is."""

from sqlalchemy import ColumnElement, case, func, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.money import CENT
from tokenyard_billing.invoice_tables import CreditNote, CreditNoteLine, CreditNoteNumbers, Invoice
from tokenyard_billing.ledger.journal import CREDIT_NOTE, AccountName
from tokenyard_billing.proof.checks.comparison import EXAMPLES, Side, broken, compare
from tokenyard_billing.proof.checks.invoice_taxes import check_line_taxes
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
    sides = Side("charges", charged), Side("lines", written)
    found = await compare(session, "credit_note_not_lines", *sides, keys=4)
    included = case((CreditNoteLine.tax_inclusive, CreditNoteLine.tax), else_=0)
    parts = select(CreditNoteLine.credit_note, CreditNoteLine.credit_applied, CreditNoteLine.tax, included)
    sums = select(CreditNote.id, CreditNote.credited, CreditNote.tax, CreditNote.tax_included).where(_ISSUED)
    sides = Side("credit note", sums), Side("lines", parts)
    found += await compare(session, "credit_note_not_taxed", *sides)
    return found + await check_line_taxes(session, "credit_note_line_not_tax", CreditNoteLine)


async def _money(session: AsyncSession) -> list[Difference]:
    due = CreditNote.lowered + CreditNote.tax - CreditNote.tax_included + CreditNote.rounding
    columns = CreditNote.id, CreditNote.total, CreditNote.lowered, CreditNote.credited, CreditNote.due_lowered
    uneven = or_(
        CreditNote.total != CreditNote.lowered + CreditNote.credited,
        CreditNote.due_lowered != due,
        *(column < 0 for column in (CreditNote.lowered, CreditNote.credited, CreditNote.due_lowered)),
    )
    found = [
        broken("credit_note_not_settled", note, f"total {total}, lowered {lowered} by {less}, credited {credited}")
        for note, total, lowered, credited, less in await session.execute(
            select(*columns).where(_ISSUED, uneven).order_by(CreditNote.id).limit(EXAMPLES)
        )
    ]
    return [*found, *await _too_much(session), *await _journal(session)]


async def _too_much(session: AsyncSession) -> list[Difference]:
    """No invoice gives back more than it billed and claimed, and by rounding no note differs by more than a cent."""
    lowered, due_lowered = func.sum(CreditNote.lowered), func.sum(CreditNote.due_lowered)
    billed = Invoice.total - Invoice.credit_applied
    given_back = (
        select(Invoice.id, lowered, due_lowered)
        .join(CreditNote, CreditNote.invoice == Invoice.id)
        .group_by(Invoice.id)
        .having(or_(lowered > billed, due_lowered > Invoice.amount_due))
    )
    odd = select(CreditNote.id, CreditNote.rounding).where(func.abs(CreditNote.rounding) > int(CENT))
    return [
        *(
            broken("credit_notes_too_much", invoice, f"they lowered {amount} by {less}")
            for invoice, amount, less in await session.execute(given_back.order_by(Invoice.id).limit(EXAMPLES))
        ),
        *(
            broken("credit_note_not_rounded", note, f"{rounding} nano-dollars were added")
            for note, rounding in await session.execute(odd.order_by(CreditNote.id).limit(EXAMPLES))
        ),
    ]


async def _journal(session: AsyncSession) -> list[Difference]:
    """What it lowered was posted, and its taxes; that of a void invoice stands nowhere any more."""
    untaxed = case((CreditNote.lowered_account == AccountName.ADJUSTMENTS.value, CreditNote.tax), else_=0)
    said: list[tuple[ColumnElement[str], ColumnElement[int]]] = [
        (CreditNote.lowered_account.expression, CreditNote.due_lowered - untaxed),
        (literal(AccountName.WALLET.value), -CreditNote.lowered),
        (literal(AccountName.TAX.value), untaxed - CreditNote.tax),
        (literal(AccountName.REVENUE.value), CreditNote.tax_included + 0),
        (literal(AccountName.ROUNDING.value), -CreditNote.rounding),
    ]
    claimed = union_all(
        *(select(CreditNote.id, account.label("account"), amount.label("amount")) for account, amount in said)
    )
    posted = (
        select(Transaction.reference, Entry.account, Entry.amount)
        .join(Transaction, Transaction.id == Entry.transaction)
        .where(Transaction.template == CREDIT_NOTE)
    )
    sides = Side("credit note", claimed), Side("journal", posted)
    return await compare(session, "credit_note_not_journal", *sides, keys=2)


async def _reversals(session: AsyncSession) -> list[Difference]:
    """What undoes a charge is that charge, negated."""
    undone = select(Charge.reverses, -Charge.amount).where(Charge.reverses.is_not(None))
    reverses = select(Charge.reverses).where(Charge.reverses.is_not(None))
    charged = select(Charge.charge_key, Charge.amount).where(Charge.charge_key.in_(reverses))
    sides = Side("reversal", undone), Side("charge", charged)
    return await compare(session, "reversal_not_charge", *sides)
