"""Which open invoices are charged to a stored method, and when: once issued, and again with each step of dunning."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, random_text
from tokenyard.core.money import CENT, NanoDollars
from tokenyard_billing.apart import Due
from tokenyard_billing.dunning.tables import Dunning
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.invoicing.closing import CLOSER
from tokenyard_billing.invoicing.settling import still_due
from tokenyard_billing.invoicing.store import OPEN
from tokenyard_billing.payments.posting import CREATED, FAILED, LIVE
from tokenyard_billing.payments.tables import Payment, PaymentCustomer
from tokenyard_billing.tables import PAYMENT_IDS


class DueCollection(Due, frozen=True):
    invoice: str


def collectable(provider: str, buckets: Collection[int], now_ms: int) -> Select[str, str]:
    """Return a query of organizations and their first invoice to be charged, to be grouped by organization.

    One is charged again for each step of dunning it took, and when its organization chose another method.
    """
    return (
        select(Invoice.organization, func.min(Invoice.id))
        .join(PaymentCustomer, PaymentCustomer.organization == Invoice.organization)
        .outerjoin(Dunning, Dunning.invoice == Invoice.id)
        .where(
            Invoice.state == OPEN,
            Invoice.amount_due % int(CENT) == 0,  # those of before ADR 55 cannot be paid by card
            PaymentCustomer.provider == provider,
            PaymentCustomer.default_method.is_not(None),
            PaymentCustomer.bucket.in_(buckets),
            PaymentCustomer.retry_at_ms <= now_ms,
            ~exists().where(_of_invoice(), Payment.state.in_(LIVE)),
            or_(_failures() <= func.coalesce(Dunning.steps, 0), _has_another_method()),
        )
    )


async def open_payment(session: AsyncSession, due: DueCollection, query: Select[str, str], now_ms: int) -> None:
    """Write down that an invoice is charged, in the caller's fenced transaction, unless it needs no more."""
    invoice = await session.scalar(select(Invoice).where(Invoice.id == due.invoice).with_for_update())
    still = query.where(Invoice.id == due.invoice).group_by(Invoice.organization)
    if invoice is None or (await session.execute(still)).first() is None:
        return
    amount = await still_due(session, invoice)
    customer = await session.scalar(select(PaymentCustomer).where(PaymentCustomer.organization == due.organization))
    if customer is None or amount <= 0:
        return
    earlier = await session.scalar(select(func.count()).where(Payment.invoice == due.invoice))
    key = f"collect:{due.invoice}/{earlier}"
    session.add(new_payment(customer, amount, key, invoice=due.invoice, actor=CLOSER, at_ms=now_ms))


def new_payment(
    customer: PaymentCustomer,
    amount: NanoDollars,
    idempotency_key: str,
    *,
    actor: ApiKeyId,
    at_ms: int,
    invoice: str | None = None,
    by_page: bool = False,
) -> Payment:
    """Return a payment that is asked for next: of an invoice or for credit, by the default method or on a page."""
    return Payment(
        id=f"{PAYMENT_IDS}{random_text()}",
        organization=customer.organization,
        bucket=customer.bucket,
        invoice=invoice,
        amount=amount,
        provider=customer.provider,
        customer=customer.customer,
        method=None if by_page else customer.default_method,
        state=CREATED,
        idempotency_key=idempotency_key,
        actor=actor,
        created_at_ms=at_ms,
    )


def _of_invoice() -> ColumnElement[bool]:
    return and_(Payment.invoice == Invoice.id, Payment.method.is_not(None))


def _failures() -> ColumnElement[int]:
    failed = select(func.count(Payment.id)).where(_of_invoice(), Payment.state == FAILED)
    return failed.correlate(Invoice).scalar_subquery()


def _has_another_method() -> ColumnElement[bool]:
    return ~exists().where(_of_invoice(), Payment.created_at_ms >= PaymentCustomer.method_at_ms)
