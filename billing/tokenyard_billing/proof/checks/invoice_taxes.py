"""Taxes of invoices: each line's follows from its rate, and what is issued stands in the journal as it is."""

from sqlalchemy import SelectBase, SQLColumnExpression, case, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.money import CENT, WHOLE
from tokenyard_billing.invoice_tables import CreditNoteLine, Invoice, InvoiceLine
from tokenyard_billing.invoicing.drafts import DRAFT
from tokenyard_billing.ledger.journal import INVOICE, AccountName
from tokenyard_billing.proof.checks.comparison import EXAMPLES, Side, broken, compare
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import Entry, Transaction


async def check_invoice_taxes(session: AsyncSession) -> list[Difference]:
    """Whose sums the lines' taxes are is checked where invoices are."""
    return [
        *await check_line_taxes(session, "invoice_line_not_tax", InvoiceLine),
        *await _rounding(session),
        *await _journal(session),
    ]


async def check_line_taxes(
    session: AsyncSession, name: str, table: type[InvoiceLine | CreditNoteLine]
) -> list[Difference]:
    """Every line is taxed as `taxes.amounts.tax_of` does it, and credit pays for no more than there is."""
    amount = table.amount - table.credit_applied
    size = case((amount < 0, -amount), else_=amount)
    gross = WHOLE + case((table.tax_inclusive, table.tax_rate), else_=0)
    # In two parts, as amount x rate may be more than 64 bits hold.
    part = (2 * (size % gross) * table.tax_rate + gross) // (2 * gross)
    tax = (size // gross) * table.tax_rate + part
    expected = case((amount < 0, -tax), else_=tax)
    overpaid = table.credit_applied > case((table.amount < 0, 0), else_=table.amount)
    wrong = or_(table.tax != expected, table.credit_applied < 0, overpaid)
    document, *_ = table.__table__.primary_key
    query = select(document, table).where(wrong).order_by(document, table.number).limit(EXAMPLES)
    return [
        broken(
            name,
            f"{of}/{one.number}",
            f"{one.tax} of {one.amount} - {one.credit_applied} at {one.tax_rate} millionths",
        )
        for of, one in await session.execute(query)
    ]


async def _rounding(session: AsyncSession) -> list[Difference]:
    """What is issued is rounded by half a cent at most, and a draft is not."""
    most = int(CENT) // 2
    wrong = or_(Invoice.rounding > most, Invoice.rounding < -most, (Invoice.state == DRAFT) & (Invoice.rounding != 0))
    query = select(Invoice.id, Invoice.rounding).where(wrong).order_by(Invoice.id).limit(EXAMPLES)
    return [
        broken("invoice_not_rounded", invoice, f"{rounding} nano-dollars were added")
        for invoice, rounding in await session.execute(query)
    ]


async def _journal(session: AsyncSession) -> list[Difference]:
    """Tax, rounding, and the tax that was taken out of revenue, were posted as the invoice says."""
    said: dict[AccountName, SQLColumnExpression[int]] = {
        AccountName.TAX: Invoice.tax,
        AccountName.ROUNDING: Invoice.rounding,
        AccountName.REVENUE: -Invoice.tax_included,
    }
    claimed: SelectBase = union_all(
        *(
            select(Invoice.id, literal(account.value).label("account"), amount.label("amount")).where(
                Invoice.state != DRAFT
            )
            for account, amount in said.items()
        )
    )
    posted = (
        select(Transaction.reference, Entry.account, Entry.amount)
        .join(Transaction, Transaction.id == Entry.transaction)
        .where(Entry.account.in_(said), Transaction.template == INVOICE)
    )
    return await compare(session, "invoice_tax_not_journal", Side("invoice", claimed), Side("journal", posted), keys=2)
