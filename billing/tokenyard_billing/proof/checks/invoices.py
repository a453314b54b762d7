"""Invoices: each adds up, bills what was charged, and all of them owe what the wallet owes."""

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from tokenyard_billing.invoice_tables import CreditNote, Invoice, InvoiceLine, StaleInvoice
from tokenyard_billing.invoicing.drafts import DRAFT
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.proof.checks.comparison import EXAMPLES, Side, broken, compare
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import Balance, Charge, CreditGrant

_Text = InstrumentedAttribute[str]


async def check_invoices(session: AsyncSession) -> list[Difference]:
    """Every stored invoice adds up; one that is not marked to be drawn again bills its period's charges."""
    return [
        *await _sums(session),
        *await _charges(session),
        *await _missing(session),
        *await _credit(session),
        *await _ledger(session),
    ]


async def _sums(session: AsyncSession) -> list[Difference]:
    totals, lines = select(Invoice.id, Invoice.total), select(InvoiceLine.invoice, InvoiceLine.amount)
    found = await compare(session, "invoice_not_lines", Side("invoice", totals), Side("lines", lines))
    columns = Invoice.id, Invoice.total, Invoice.credit_applied, Invoice.amount_due
    uneven = select(*columns).where(
        or_(Invoice.total != Invoice.credit_applied + Invoice.amount_due, Invoice.credit_applied < 0)
    )
    found += [
        broken("invoice_not_due", invoice, f"total {total}, credit applied {credit}, due {due}")
        for invoice, total, credit, due in await session.execute(uneven.order_by(Invoice.id).limit(EXAMPLES))
    ]
    wrong = select(InvoiceLine).where(InvoiceLine.amount != InvoiceLine.quantity * InvoiceLine.rate)
    order = InvoiceLine.invoice, InvoiceLine.number
    return found + [
        broken("invoice_line_not_rate", f"{one.invoice}/{one.number}", f"{one.quantity} x {one.rate} = {one.amount}")
        for one in await session.scalars(wrong.order_by(*order).limit(EXAMPLES))
    ]


async def _charges(session: AsyncSession) -> list[Difference]:
    """Compare by month of use, model and price, so that errors of two lines do not cancel."""
    line = InvoiceLine.usage_period, InvoiceLine.model, InvoiceLine.price, InvoiceLine.amount
    billed = select(Invoice.id, *line).join(InvoiceLine, InvoiceLine.invoice == Invoice.id)
    charged = select(Invoice.id, Charge.period, Charge.model, Charge.price, Charge.amount).join(
        Charge,
        (Charge.organization == Invoice.organization)
        & (Charge.billed_in == Invoice.period)
        & Charge.credit_note.is_(None),
    )
    drawn = or_(Invoice.state != DRAFT, ~_on_its_way(Invoice.organization, Invoice.period))
    sides = Side("charges", charged.where(drawn)), Side("lines", billed.where(drawn))
    return await compare(session, "invoice_not_charges", *sides, keys=4)


async def _missing(session: AsyncSession) -> list[Difference]:
    period = Charge.organization, Charge.billed_in
    invoiced = exists().where(Invoice.organization == Charge.organization, Invoice.period == Charge.billed_in)
    query = select(*period).where(~invoiced, ~_on_its_way(*period)).distinct()
    return [
        broken("invoice_missing", f"{organization}/{month}", "charged, and neither billed nor marked to be")
        for organization, month in await session.execute(query.order_by(*period).limit(EXAMPLES))
    ]


async def _credit(session: AsyncSession) -> list[Difference]:
    """Credit is applied as far as it goes: what was granted by the period's end and earlier invoices have left.

    What was granted after an invoice was issued, with a date before, is for the next one.
    """
    other = aliased(Invoice)
    granted = select(func.coalesce(func.sum(CreditGrant.amount), 0)).where(
        CreditGrant.organization == Invoice.organization,
        CreditGrant.granted_at_ms < Invoice.period_end_ms,
    )
    taken_back = select(func.coalesce(func.sum(CreditNote.credited), 0)).where(
        CreditNote.organization == Invoice.organization, CreditNote.issued_at_ms < Invoice.period_end_ms
    )
    applied = select(func.sum(other.credit_applied)).where(
        other.organization == Invoice.organization, other.period <= Invoice.period
    )
    left = granted.scalar_subquery() + taken_back.scalar_subquery() - applied.scalar_subquery()
    wrong = or_(left < 0, and_(left > 0, Invoice.amount_due > 0, Invoice.state == DRAFT))
    query = select(Invoice.id, left, Invoice.amount_due).where(
        wrong, ~_on_its_way(Invoice.organization, Invoice.period)
    )
    return [
        broken("invoice_credit_wrong", invoice, f"credit left {rest}, and due {due}")
        for invoice, rest, due in await session.execute(query.order_by(Invoice.id).limit(EXAMPLES))
    ]


async def _ledger(session: AsyncSession) -> list[Difference]:
    """Credit left - amounts due = wallet + reserved, of each organization none of whose invoices is to be drawn.

    What an issued invoice claims the wallet owes no more; what a credit note takes back is credit until it is issued.
    """
    taken_back = case((CreditNote.issued_at_ms.is_(None), CreditNote.total), else_=CreditNote.credited)
    owed = case((Invoice.state == DRAFT, Invoice.amount_due), else_=0)
    due = Invoice.organization, (-Invoice.credit_applied - owed).label("amount")
    bills = union_all(
        select(CreditGrant.organization, CreditGrant.amount).where(~_marked(CreditGrant.organization)),
        select(CreditNote.organization, taken_back).where(~_marked(CreditNote.organization)),
        select(*due).where(~_marked(Invoice.organization)),
    )
    ledger = select(Balance.organization, Balance.amount).where(
        Balance.account.in_((AccountName.WALLET, AccountName.RESERVED)), ~_marked(Balance.organization)
    )
    return await compare(session, "invoices_not_ledger", Side("invoices", bills), Side("ledger", ledger))


def _marked(organization: _Text) -> ColumnElement[bool]:
    return exists().where(StaleInvoice.organization == organization)


def _on_its_way(organization: _Text, period: _Text) -> ColumnElement[bool]:
    """Tell whether an invoice will be drawn again: it, or an earlier one that may take credit from it, is marked."""
    return exists().where(StaleInvoice.organization == organization, StaleInvoice.period <= period)
