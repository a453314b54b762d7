"""Credit that an organization buys: on the provider's page, or by a stored method."""

from enum import StrEnum

import msgspec
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, InvalidRequest
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import CENT, NANO_PER_DOLLAR, NanoDollars
from tokenyard.storage.database import Database
from tokenyard_billing.payments.asking import PAGE_MS
from tokenyard_billing.payments.collecting import new_payment
from tokenyard_billing.payments.methods import PaymentMethods
from tokenyard_billing.payments.ports import CheckoutOrder, CheckoutPage
from tokenyard_billing.payments.posting import CREATED, LIVE
from tokenyard_billing.payments.tables import Payment

LEAST, MOST = NanoDollars(NANO_PER_DOLLAR), NanoDollars(100_000 * NANO_PER_DOLLAR)
TITLE = "API credit"
MAX_UNFINISHED = 10


def check_amount(amount: NanoDollars) -> None:
    """Raise `InvalidRequest` for what is no amount of credit that can be bought."""
    if not LEAST <= amount <= MOST or amount % CENT:
        raise InvalidRequest("Credit is bought in whole cents, from 1 to 100000 dollars.", param="amount_dollars")


class PayBy(StrEnum):
    CHECKOUT = "checkout"
    STORED_METHOD = "stored_method"


class TopUps:
    def __init__(self, database: Database, methods: PaymentMethods, clock: Clock) -> None:
        self._database = database
        self._methods = methods
        self._clock = clock

    async def buy(
        self,
        organization: OrganizationId,
        amount: NanoDollars,
        by: PayBy,
        *,
        idempotency_key: str,
        actor: ApiKeyId,
    ) -> Payment:
        """Return the payment: with the page to pay on, or to be charged within seconds. Credit comes with its success.

        The same idempotency key again is the same payment.

        Raises:
            InvalidRequest: the amount is no whole number of cents between 1 and 100,000 dollars, there is no stored
                method, or the provider refuses.
            Conflict: the idempotency key was used for another amount, or to be paid in another way, or too many
                top-ups are unfinished.
            NotFound, Unavailable: as `PaymentMethods`.
        """
        check_amount(amount)
        customer = await self._methods.customer(organization)
        by_page = by is PayBy.CHECKOUT
        if not by_page and customer.default_method is None:
            raise InvalidRequest("No payment method is stored. Set one up first, or pay by checkout.", param="by")
        key, now_ms = f"top_up:{idempotency_key}", self._clock.now_ms()
        payment = await self._once(new_payment(customer, amount, key, actor=actor, at_ms=now_ms, by_page=by_page))
        if payment.amount != amount or (payment.method is None) != by_page:
            raise Conflict(f"The idempotency key {idempotency_key!r} was used for another top-up.")
        return payment if payment.method or payment.checkout or payment.state != CREATED else await self._page(payment)

    async def _once(self, wanted: Payment) -> Payment:
        own = (Payment.organization == wanted.organization) & (Payment.idempotency_key == wanted.idempotency_key)
        try:
            async with self._database.transaction() as session:
                found = await session.scalar(select(Payment).where(own))
                if found is None:
                    await _check_unfinished(session, wanted.organization)
                    session.add(wanted)
                return found or wanted
        except IntegrityError:  # the same key at the same moment: the other one won
            async with self._database.reading() as session:
                return (await session.scalars(select(Payment).where(own))).one()

    async def _page(self, payment: Payment) -> Payment:
        """Give it its page; until this is written down, nobody knows of that."""
        asked = CheckoutOrder(
            payment=payment.id,
            organization=OrganizationId(payment.organization),
            customer=payment.customer,
            amount=NanoDollars(payment.amount),
            title=TITLE,
            expires_at_ms=payment.created_at_ms + PAGE_MS,
            attempt=self._clock.now_ms(),
        )

        async def ask(customer: str) -> CheckoutPage:
            nonlocal asked
            asked = msgspec.structs.replace(asked, customer=customer)
            return await self._methods.provider.checkout(asked)

        page = await self._methods.as_customer(asked.organization, ask)
        async with self._database.transaction() as session:
            row = await session.get_one(Payment, payment.id, with_for_update=True)
            if row.checkout is None and row.state == CREATED:
                row.checkout, row.checkout_url, row.customer = page.id, page.url, asked.customer
                row.retry_at_ms = self._clock.now_ms()
            return row


async def _check_unfinished(session: AsyncSession, organization: str) -> None:
    """A worker follows an organization's payments one after the other: its invoices do not wait behind thousands."""
    unfinished = (Payment.organization == organization) & Payment.invoice.is_(None) & Payment.state.in_(LIVE)
    count = await session.scalar(select(func.count()).where(unfinished))
    if count is not None and count >= MAX_UNFINISHED:
        raise Conflict(f"{count} top-ups are unfinished. Pay these first, or wait until their pages expire.")
