"""Issued invoices: each is of a closed period, stands in the journal as it is, and has the next number."""

from sqlalchemy import and_, case, exists, func, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard_billing.invoice_tables import (
    BillingPeriod,
    CreditNote,
    CreditNoteNumbers,
    Invoice,
    InvoiceNumbers,
    Settlement,
)
from tokenyard_billing.invoicing.drafts import DRAFT
from tokenyard_billing.invoicing.settling import ACCOUNTS
from tokenyard_billing.invoicing.store import OPEN
from tokenyard_billing.ledger.journal import INVOICE, SETTLEMENT, AccountName
from tokenyard_billing.proof.checks.comparison import EXAMPLES, Side, broken, compare
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import Entry, Transaction

_LOWERING = (
    CreditNote,
    (CreditNote.invoice == Invoice.id) & (CreditNote.lowered_account == AccountName.RECEIVABLE.value),
)
"""Credit notes that took something from what an invoice claims, while it was open."""


async def check_issued_invoices(session: AsyncSession) -> list[Difference]:
    """Of every closed period: invoice = journal; that invoice = charges is checked where drafts are."""
    return [
        *await _states(session),
        *await _journal(session),
        *await _settlements(session),
        *await check_numbers(session, "invoice_numbers_gap", Invoice, InvoiceNumbers),
    ]


async def _states(session: AsyncSession) -> list[Difference]:
    """What is issued has a number and is of a closed period, and a draft is of an open one."""
    closed = exists().where(
        BillingPeriod.organization == Invoice.organization,
        BillingPeriod.period == Invoice.period,
        BillingPeriod.closed_at_ms.is_not(None),
    )
    numbered = and_(Invoice.sequence.is_not(None), Invoice.issued_at_ms.is_not(None), Invoice.due_at_ms.is_not(None))
    wrong = or_(
        (Invoice.state == DRAFT) & or_(closed, Invoice.sequence.is_not(None)),
        (Invoice.state != DRAFT) & or_(~closed, ~numbered),
    )
    query = select(Invoice.id, Invoice.state, Invoice.number).where(wrong).order_by(Invoice.id).limit(EXAMPLES)
    return [
        broken("invoice_not_closed", invoice, f"{state} with number {number}, against its period")
        for invoice, state, number in await session.execute(query)
    ]


async def _journal(session: AsyncSession) -> list[Difference]:
    """What an invoice claims is what its posting moved into what is to be received, and what is settled moved out."""
    claimed = select(Invoice.id, Invoice.amount_due).where(Invoice.state != DRAFT)
    posted = (
        select(Transaction.reference, -Entry.amount)
        .join(Transaction, Transaction.id == Entry.transaction)
        .where(Entry.account == AccountName.RECEIVABLE, Transaction.template == INVOICE)
    )
    found = await compare(session, "invoice_not_journal", Side("invoice", claimed), Side("journal", posted))
    left = union_all(
        select(Invoice.organization, Invoice.amount_due).where(Invoice.state == OPEN),
        select(Invoice.organization, -CreditNote.lowered).join(*_LOWERING).where(Invoice.state == OPEN),
    )
    receivable = select(Entry.organization, -Entry.amount).where(Entry.account == AccountName.RECEIVABLE)
    sides = Side("open invoices", left), Side("journal", receivable)
    return found + await compare(session, "open_invoices_not_receivable", *sides)


async def _settlements(session: AsyncSession) -> list[Difference]:
    """Every settled invoice that had something left to pay says how it ended; that was posted to its own account."""
    ended = union_all(
        select(Invoice.id, Invoice.state, Invoice.amount_due).where(Invoice.state.in_(ACCOUNTS)),
        select(Invoice.id, Invoice.state, -CreditNote.lowered).join(*_LOWERING).where(Invoice.state.in_(ACCOUNTS)),
    )
    said = select(Settlement.invoice, Settlement.state, Settlement.amount)
    sides = Side("invoice", ended), Side("settlement", said)
    found = await compare(session, "settlement_not_invoice", *sides, keys=2)
    account = case(*((Settlement.state == state, name.value) for state, name in ACCOUNTS.items()), else_="none")
    settled = select(Settlement.transaction, account.label("account"), Settlement.amount)
    posted = (
        select(Entry.transaction, Entry.account, -Entry.amount)
        .join(Transaction, Transaction.id == Entry.transaction)
        .where(Entry.account != AccountName.RECEIVABLE, Transaction.template == SETTLEMENT)
    )
    sides = Side("settlement", settled), Side("journal", posted)
    return found + await compare(session, "settlement_not_journal", *sides, keys=2)


async def check_numbers(
    session: AsyncSession,
    name: str,
    document: type[Invoice | CreditNote],
    numbers: type[InvoiceNumbers | CreditNoteNumbers],
) -> list[Difference]:
    """The numbers of an issuer are 1 to the last that was given: none is there twice, as SQL itself forbids that."""
    of_issuer = func.count(), func.max(document.sequence)
    given = select(document.issuer, *of_issuer).where(document.issuer.is_not(None)).group_by(document.issuer)
    found = {str(issuer): (count, highest) for issuer, count, highest in await session.execute(given)}
    last = {issuer: counted for issuer, counted in await session.execute(select(numbers.issuer, numbers.last))}
    uneven = [
        (issuer, *found.get(issuer, (0, 0)), last.get(issuer, 0)) for issuer in sorted(found.keys() | last.keys())
    ]
    return [
        broken(name, issuer, f"{count} issued, the highest number {highest}, the last given {counted}")
        for issuer, count, highest, counted in uneven
        if not count == highest == counted
    ]
