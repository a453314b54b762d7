"""The ways to pay that an organization has stored with the provider, and which of them is charged."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, InvalidRequest, NotFound, Unavailable
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage import bulk
from tokenyard.storage.database import AuditLog, Database
from tokenyard_billing.invoicing.closing import CLOSER
from tokenyard_billing.payments.ports import (
    CheckoutPage,
    CheckoutState,
    CustomerGone,
    PaymentProvider,
    ProviderRefused,
    ProviderUnavailable,
    StoredMethod,
)
from tokenyard_billing.payments.tables import PaymentCustomer, PaymentSetup

FIRST_LOOK_MS = 60_000
MAX_OPEN_SETUPS = 10


class ListedMethod(msgspec.Struct, frozen=True):
    """`default` is the one that is charged."""

    method: StoredMethod
    default: bool


class PaymentMethods:
    """Methods are kept by the provider alone. Where an installation has none, every call raises `NotFound`.

    Every call also raises `Unavailable` where the provider does not answer.
    """

    def __init__(self, database: Database, provider: PaymentProvider | None, audit: AuditLog, clock: Clock) -> None:
        self._database = database
        self._provider = provider
        self._audit = audit
        self._clock = clock

    @property
    def provider(self) -> PaymentProvider:
        if self._provider is None:
            raise NotFound("This installation takes no payments by itself. Please ask who runs it how to pay.")
        return self._provider

    async def set_up(self, organization: OrganizationId) -> CheckoutPage:
        """Return a page of the provider's. The method that is set up there is charged from then on.

        Too many open pages raise `Conflict`.
        """
        await self._check_open(organization)
        page = await self.as_customer(organization, lambda customer: self.provider.setup(organization, customer))
        now_ms = self._clock.now_ms()
        row = {
            "checkout": page.id,
            "organization": organization,
            "bucket": bucket_of(organization),
            "provider": self.provider.name,
            "state": CheckoutState.OPEN.value,
            "created_at_ms": now_ms,
            "retry_at_ms": now_ms + FIRST_LOOK_MS,
        }
        async with self._database.transaction() as session:
            await bulk.insert_new(session, PaymentSetup, [row])
        return page

    async def listed(self, organization: OrganizationId) -> Sequence[ListedMethod]:
        """Return the organization's methods, the newest first."""
        customer = await self.known_customer(organization)
        if customer is None:
            return []
        async with answering():
            try:
                found = await self.provider.methods(customer.customer)
            except CustomerGone:
                return []
        return [ListedMethod(one, one.id == customer.default_method) for one in found]

    async def choose(self, organization: OrganizationId, method: str, *, actor: ApiKeyId) -> ListedMethod:
        """Charge this method from now on; one that is not the organization's raises `NotFound`."""
        found = await self._own(organization, method)
        await self._write(organization, method, actor)
        return ListedMethod(found, default=True)

    async def remove(self, organization: OrganizationId, method: str, *, actor: ApiKeyId) -> None:
        """Charge this method never again; one that is not the organization's raises `NotFound`."""
        await self._own(organization, method)
        async with answering():
            await self.provider.forget(method)
        customer = await self.known_customer(organization)
        if customer is not None and customer.default_method == method:
            await self._write(organization, None, actor)

    async def customer(self, organization: OrganizationId) -> PaymentCustomer:
        """Return who the organization is to the provider, made where it is new there."""
        found = await self.known_customer(organization)
        if found is not None:
            return found
        async with answering():
            customer = await self.provider.customer(organization)
        row = {
            "organization": organization,
            "provider": self.provider.name,
            "customer": customer,
            "bucket": bucket_of(organization),
            "default_method": None,
            "method_at_ms": 0,
            "retry_at_ms": 0,
        }
        async with self._database.transaction() as session:
            await bulk.insert_new(session, PaymentCustomer, [row])
            return await session.get_one(PaymentCustomer, (organization, self.provider.name))

    async def as_customer(
        self, organization: OrganizationId, ask: Callable[[str], Awaitable[CheckoutPage]]
    ) -> CheckoutPage:
        """Ask for a page as the organization's customer; as a new one, where the provider knows that no more."""
        customer = await self.customer(organization)
        async with answering():
            try:
                return await ask(customer.customer)
            except CustomerGone:
                return await ask(await self._begin_anew(organization, customer.customer))

    async def known_customer(self, organization: OrganizationId) -> PaymentCustomer | None:
        async with self._database.reading() as session:
            return await session.get(PaymentCustomer, (organization, self.provider.name))

    async def _begin_anew(self, organization: OrganizationId, gone: str) -> str:
        """Return another customer in place of one that is gone, with all of its methods."""
        made = await self.provider.customer(organization)
        async with self._database.transaction() as session:
            row = await session.get_one(PaymentCustomer, (organization, self.provider.name), with_for_update=True)
            if row.customer == gone:
                row.customer = made
                now_ms = self._clock.now_ms()
                choose_method(session, row, None, audit=self._audit, actor=CLOSER, now_ms=now_ms)
            return row.customer

    async def _check_open(self, organization: OrganizationId) -> None:
        """Pages live for a day, and a worker looks after each of them."""
        own = (PaymentSetup.organization == organization) & (PaymentSetup.state == CheckoutState.OPEN)
        async with self._database.reading() as session:
            count = await session.scalar(select(func.count()).where(own))
        if count is not None and count >= MAX_OPEN_SETUPS:
            raise Conflict(f"{count} set-ups of payment methods are open. Finish one first.")

    async def _own(self, organization: OrganizationId, method: str) -> StoredMethod:
        for one in await self.listed(organization):
            if one.method.id == method:
                return one.method
        raise NotFound(f"No such payment method: `{method}`.")

    async def _write(self, organization: OrganizationId, method: str | None, actor: ApiKeyId) -> None:
        async with self._database.transaction() as session:
            row = await session.get_one(PaymentCustomer, (organization, self.provider.name), with_for_update=True)
            choose_method(session, row, method, audit=self._audit, actor=actor, now_ms=self._clock.now_ms())


def choose_method(
    session: AsyncSession,
    customer: PaymentCustomer,
    method: str | None,
    *,
    audit: AuditLog,
    actor: ApiKeyId,
    now_ms: int,
) -> None:
    """Charge `method`, or none, from now on."""
    before, customer.default_method, customer.method_at_ms = customer.default_method, method, now_ms
    audit(
        *(session, OrganizationId(customer.organization), actor, "payment_method.chosen", method or before or ""),
        at=now_ms // 1000,
        details={"method": method},
        before={"method": before},
    )


@asynccontextmanager
async def answering() -> AsyncIterator[None]:
    """Tell a client what the provider could not, or would not, do."""
    try:
        yield
    except ProviderUnavailable as error:
        raise Unavailable("The payment provider does not answer right now. Please try again shortly.") from error
    except ProviderRefused as refused:
        raise InvalidRequest(f"The payment provider refused: {refused.message}", code=refused.code) from refused
