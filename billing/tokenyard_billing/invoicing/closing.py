"""Closes periods: their invoices are issued, with a number, and never drawn again."""

from collections.abc import Collection

import msgspec
from sqlalchemy import ColumnElement, and_, exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tokenyard.core.budgets import wallet
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import CENT, NanoDollars
from tokenyard.storage import bulk
from tokenyard.storage.database import AuditLog, EventLog
from tokenyard_billing.apart import Due
from tokenyard_billing.invoice_tables import (
    BillingPeriod,
    CreditNoteNumbers,
    Invoice,
    InvoiceNumbers,
    StaleInvoice,
)
from tokenyard_billing.invoicing.drafts import DRAFT, Drafts, InvoiceMismatch, invoice_id, keep
from tokenyard_billing.invoicing.store import OPEN
from tokenyard_billing.ledger import journal
from tokenyard_billing.parties.snapshots import keep_parties
from tokenyard_billing.tables import BucketLease, Charge, OpenRequest
from tokenyard_billing.taxes.amounts import rounded_to
from tokenyard_billing.wallets.changes import BudgetChanges

PAID = "paid"
INVOICE_PAID = "invoice.paid"
"""The event of an invoice that owes nothing any more, by a payment or without one."""
CLOSER = ApiKeyId("worker")  # the actor of changes that no key asked for


class ClosingTerms(msgspec.Struct, frozen=True):
    """When periods close, who issues their invoices, and in what time these are to be paid.

    A number is `<prefix>-000123`; credit notes have a prefix, and numbers, of their own. Each issuer counts for itself.
    `payable` is the smallest amount that can be paid.
    """

    close_after_ms: int
    payment_ms: int
    issuer: str
    prefix: str
    credit_note_prefix: str
    payable: NanoDollars = CENT


class DuePeriod(Due, frozen=True):
    period: str


async def due_periods(
    session: AsyncSession, buckets: Collection[int], terms: ClosingTerms, now_ms: int, *, after: str, limit: int
) -> list[DuePeriod]:
    """Return at most `limit` periods that may close now, one of each organization behind `after`."""
    query = (
        select(BillingPeriod.organization, BillingPeriod.period)
        .where(
            BillingPeriod.bucket.in_(buckets),
            BillingPeriod.organization > after,
            BillingPeriod.retry_at_ms <= now_ms,
            _may_close(terms, now_ms),
        )
        .order_by(BillingPeriod.organization)
        .limit(limit)
    )
    return [DuePeriod(OrganizationId(owner), period) for owner, period in await session.execute(query)]


async def close(
    session: AsyncSession,
    drafts: Drafts,
    period: str,
    *,
    terms: ClosingTerms,
    audit: AuditLog,
    events: EventLog,
    now_ms: int,
) -> list[BudgetChanges]:
    """Write `drafts` down and close `period`, unless something changed since they were drawn: then do it later.

    The caller has proved to hold the organization's bucket, so no charge of it comes in between. Return what changed
    of budgets.

    A period in which a plan asked something, and which came to nothing, closes without an invoice.

    Raises:
        InvoiceMismatch: the period has a charge, and no invoice.
    """
    organization = drafts.organization
    await journal.lock_wallet(session, organization)
    await keep(session, drafts)
    own = (BillingPeriod.organization == organization) & (BillingPeriod.period == period)
    row = await session.scalar(select(BillingPeriod).where(own, _may_close(terms, now_ms)))
    marked = exists().where(StaleInvoice.organization == organization, StaleInvoice.period <= period)
    if row is None or await session.scalar(select(marked)):
        return []
    row.closed_at_ms = now_ms
    invoice = await session.get(Invoice, invoice_id(organization, period))
    if invoice is None:
        billed = exists().where(Charge.organization == organization, Charge.billed_in == period)
        if await session.scalar(select(billed)):
            raise InvoiceMismatch(f"{organization} {period}: charged, and neither billed nor marked to be")
        return []
    return await _issue(session, invoice, terms, audit=audit, events=events, now_ms=now_ms)


def _may_close(terms: ClosingTerms, now_ms: int) -> ColumnElement[bool]:
    """All that was used in the period had its time to be told, was read, and is decided; earlier ones are closed."""
    settled_ms = BillingPeriod.end_ms + terms.close_after_ms
    read = exists().where(BucketLease.bucket == BillingPeriod.bucket, BucketLease.watermark_ms > settled_ms)
    undecided = exists().where(
        OpenRequest.bucket == BillingPeriod.bucket,
        OpenRequest.organization == BillingPeriod.organization,
        OpenRequest.admitted_at_ms < BillingPeriod.end_ms,
    )
    other = aliased(BillingPeriod)
    earlier = exists().where(
        other.organization == BillingPeriod.organization,
        other.period < BillingPeriod.period,
        other.closed_at_ms.is_(None),
    )
    return and_(BillingPeriod.closed_at_ms.is_(None), settled_ms <= now_ms, read, ~undecided, ~earlier)


async def _issue(
    session: AsyncSession, invoice: Invoice, terms: ClosingTerms, *, audit: AuditLog, events: EventLog, now_ms: int
) -> list[BudgetChanges]:
    if invoice.state != DRAFT:
        raise AssertionError(f"{invoice.id} is {invoice.state}, and its period was not closed")
    organization, billed = OrganizationId(invoice.organization), NanoDollars(invoice.total - invoice.credit_applied)
    due = rounded_to(NanoDollars(invoice.amount_due), terms.payable)
    invoice.rounding = due - invoice.amount_due
    invoice.amount_due = due
    changes = []
    if billed or invoice.tax:  # tax may be a nano-dollar that lines were rounded by
        posting = journal.invoice_issued(
            organization,
            billed,
            tax=NanoDollars(invoice.tax),
            tax_included=NanoDollars(invoice.tax_included),
            rounding=NanoDollars(invoice.rounding),
            reference=invoice.id,
        )
        await journal.post(session, [posting], now_ms)
        changes.append(BudgetChanges(organization))
        changes[0].add([wallet(organization)])
    invoice.state = OPEN if due else PAID
    invoice.issuer = terms.issuer
    invoice.issued_at_ms = now_ms
    invoice.due_at_ms = now_ms + terms.payment_ms
    await keep_parties(session, invoice.id, organization, terms.issuer)
    for kind in ("invoice.issued",) if due else ("invoice.issued", INVOICE_PAID):
        await events(session, organization, kind, {"id": invoice.id}, at_ms=now_ms)
    # Last, as everybody waits for it: the issuer's row is locked from here to the commit, and a rollback undoes it.
    invoice.sequence = await next_number(session, InvoiceNumbers, terms.issuer)
    invoice.number = f"{terms.prefix}-{invoice.sequence:06d}"
    details: dict[str, object] = {"number": invoice.number, "state": invoice.state, "amount_due": invoice.amount_due}
    audit(
        *(session, organization, CLOSER, "invoice.issued", invoice.id),
        at=now_ms // 1000,
        details=details,
        before={"state": DRAFT},
    )
    return changes


async def next_number(session: AsyncSession, numbers: type[InvoiceNumbers | CreditNoteNumbers], issuer: str) -> int:
    """Return the next number of a document of the issuer; whoever asks next waits for this transaction's end."""
    statement = bulk.upsert(session, numbers).values(issuer=issuer, last=1)
    counted = statement.on_conflict_do_update(index_elements=["issuer"], set_={"last": numbers.last + 1})
    return int((await session.execute(counted.returning(numbers.last))).scalar_one())
