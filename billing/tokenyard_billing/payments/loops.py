"""Collects open invoices, and follows payments and set-ups to their end, in the buckets that this worker leases."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import AuditLog, Database
from tokenyard.storage.transactional_outbox import OutboxMessage, TransactionalOutbox
from tokenyard.web.loops import Loop
from tokenyard_billing.apart import BATCH, Apart, Due
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.charging.batch import raise_alarms
from tokenyard_billing.charging.decision import Finding
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.invoicing.closing import CLOSER
from tokenyard_billing.invoicing.settling import still_due
from tokenyard_billing.invoicing.store import OPEN
from tokenyard_billing.payments.asking import PaymentSteps
from tokenyard_billing.payments.collecting import DueCollection, collectable, open_payment
from tokenyard_billing.payments.methods import choose_method
from tokenyard_billing.payments.ports import (
    ChargeProgress,
    ChargeState,
    CheckoutState,
    PaymentProvider,
    ProviderRefused,
    ProviderUnavailable,
    WrongAmount,
)
from tokenyard_billing.payments.posting import CANCELLED, FAILED, LIVE, PROCESSING, PaymentPosting
from tokenyard_billing.payments.tables import Payment, PaymentCustomer, PaymentSetup

INTERVAL_S = 2.0
POLL_MS = 10 * 60_000
"""So often what is under way is asked for: the provider tells of it by itself, and may not get through."""
RETRY_MS, MAX_RETRY_MS = 10_000, 10 * 60_000
MAX_DOUBLINGS = 10
ALARM_AFTER = 6  # attempts in vain: about ten minutes
SETUP_MS = 25 * 3_600_000  # a page of Stripe's lives for a day


class DuePayment(Due, frozen=True):
    payment: str


class DueSetup(Due, frozen=True):
    checkout: str


class PaymentLoop:
    """One of each kind of each organization in a step. While the provider is away, it is asked once in a step."""

    def __init__(
        self,
        *,
        database: Database,
        leases: BucketLeases,
        outbox: TransactionalOutbox,
        metrics: LedgerMetrics,
        clock: Clock,
        provider: PaymentProvider,
        posting: PaymentPosting,
        audit: AuditLog,
    ) -> None:
        self._database = database
        self._leases = leases
        self._outbox = outbox
        self._metrics = metrics
        self._clock = clock
        self._provider = provider
        self._posting = posting
        self._audit = audit
        self._steps = PaymentSteps(provider, self._keep, self._wanted)
        self._apart = Apart(database, leases, metrics, clock)
        self._away = False

    def loop(self) -> Loop:
        return Loop("payments", self.step, INTERVAL_S)

    async def step(self) -> None:
        self._away = False
        await self._apart.each("set up payment methods", self._due_setups, self._set_up, self._put_off_setup)
        await self._apart.each("collect invoices", self._due_collections, self._collect, self._put_off_collection)
        await self._apart.each("payments", self._due_payments, self._follow, self._put_off_payment)

    async def _due_collections(self, after: str) -> list[DueCollection]:
        rows = await self._first_of_each(self._collectable(), Invoice.organization, after)
        return [DueCollection(OrganizationId(owner), invoice) for owner, invoice in rows]

    async def _due_payments(self, after: str) -> list[DuePayment]:
        query = select(Payment.organization, func.min(Payment.id)).where(Payment.state.in_(LIVE), *self._mine(Payment))
        rows = await self._first_of_each(query, Payment.organization, after)
        return [DuePayment(OrganizationId(owner), payment) for owner, payment in rows]

    async def _due_setups(self, after: str) -> list[DueSetup]:
        wanted = PaymentSetup.state == CheckoutState.OPEN.value
        query = select(PaymentSetup.organization, func.min(PaymentSetup.checkout)).where(
            wanted, *self._mine(PaymentSetup)
        )
        rows = await self._first_of_each(query, PaymentSetup.organization, after)
        return [DueSetup(OrganizationId(owner), checkout) for owner, checkout in rows]

    async def _first_of_each(
        self, query: Select[str, str], organization: InstrumentedAttribute[str], after: str
    ) -> list[tuple[str, str]]:
        if self._away:
            return []
        part = query.where(organization > after).group_by(organization).order_by(organization).limit(BATCH)
        async with self._database.reading() as session:
            return [(owner, first) for owner, first in await session.execute(part)]

    def _mine(self, table: type[Payment | PaymentSetup]) -> tuple[ColumnElement[bool], ...]:
        now_ms = self._clock.now_ms()
        held = table.bucket.in_(self._leases.held)
        return held, table.provider == self._provider.name, table.retry_at_ms <= now_ms

    def _collectable(self) -> Select[str, str]:
        return collectable(self._provider.name, self._leases.held, self._clock.now_ms())

    async def _collect(self, due: DueCollection) -> None:
        async with self._database.transaction() as session:
            await self._fence(session, due)
            await open_payment(session, due, self._collectable(), self._clock.now_ms())

    async def _follow(self, due: DuePayment) -> None:
        if self._away:
            return
        async with self._database.reading() as session:
            payment = await session.get_one(Payment, due.payment)
        progress = await self._steps.ask(payment, self._clock.now_ms())
        messages: Sequence[OutboxMessage] = []
        async with self._database.transaction() as session:
            await self._fence(session, due)
            row = await _locked(session, due.payment)
            if row.state in LIVE:
                messages = await self._note(session, row, progress)
        await self._outbox.try_to_carry(messages)

    async def _note(
        self, session: AsyncSession, payment: Payment, progress: ChargeProgress | None
    ) -> Sequence[OutboxMessage]:
        now_ms = self._clock.now_ms()
        payment.attempts = 0
        match progress:
            case ChargeProgress(ChargeState.SUCCEEDED, taken=taken):
                if taken != payment.amount:
                    raise WrongAmount(f"{payment.charge} took {taken} nano-dollars in place of {payment.amount}")
                return await self._posting.succeed(session, payment, now_ms)
            case ChargeProgress(ChargeState.FAILED, code, message):
                self._posting.end(session, payment, FAILED, now_ms, code=code, message=message)
            case ChargeProgress(ChargeState.CANCELLED):
                self._posting.end(session, payment, CANCELLED, now_ms)
            case ChargeProgress(ChargeState.PROCESSING | ChargeState.WAITING):
                payment.state, payment.retry_at_ms = PROCESSING, now_ms + POLL_MS
            case ChargeProgress():
                payment.retry_at_ms = now_ms + RETRY_MS
            case None:
                payment.retry_at_ms = now_ms + POLL_MS
        return []

    async def _keep(self, payment: Payment, charge: str) -> None:
        async with self._database.transaction() as session:
            await self._leases.fence(session, {payment.bucket})
            row = await _locked(session, payment.id)
            if row.charge is not None or row.state not in LIVE:
                raise AssertionError(f"{payment.id} has the charge {row.charge} and is {row.state}")
            row.charge = charge

    async def _wanted(self, payment: Payment) -> bool:
        if payment.invoice is None:
            return True
        async with self._database.reading() as session:
            invoice = await session.get_one(Invoice, payment.invoice)
            return invoice.state == OPEN and await still_due(session, invoice) == payment.amount

    async def _set_up(self, due: DueSetup) -> None:
        if self._away:
            return
        progress = await self._provider.checkout_progress(due.checkout)
        async with self._database.transaction() as session:
            now_ms = self._clock.now_ms()
            await self._fence(session, due)
            row = await session.get_one(PaymentSetup, due.checkout)
            row.state, row.retry_at_ms = progress.state.value, now_ms + POLL_MS
            if progress.state is CheckoutState.OPEN and now_ms > row.created_at_ms + SETUP_MS:
                row.state = CheckoutState.EXPIRED.value
            if progress.state is CheckoutState.COMPLETED and progress.method is not None:
                customer = await session.get_one(PaymentCustomer, (due.organization, self._provider.name))
                choose_method(session, customer, progress.method, audit=self._audit, actor=CLOSER, now_ms=now_ms)

    async def _put_off_collection(self, due: DueCollection, error: Exception) -> None:
        own = update(PaymentCustomer).where(PaymentCustomer.organization == due.organization)
        await self._apart.put_off(due.organization, own, "invoice_not_collected", due.invoice, error)

    async def _put_off_setup(self, due: DueSetup, error: Exception) -> None:
        own = update(PaymentSetup).where(PaymentSetup.checkout == due.checkout)
        if not isinstance(error, ProviderUnavailable):
            state = {"state": CheckoutState.EXPIRED.value} if isinstance(error, ProviderRefused) else {}
            rows = own.values(state) if state else own
            await self._apart.put_off(due.organization, rows, "payment_setup_failed", due.checkout, error)
            return
        self._away = True
        async with self._database.transaction() as session:
            await self._fence(session, due)
            await session.execute(own.values(retry_at_ms=self._clock.now_ms() + RETRY_MS))

    async def _put_off_payment(self, due: DuePayment, error: Exception) -> None:
        if not isinstance(error, ProviderUnavailable):
            own = update(Payment).where(Payment.id == due.payment)
            await self._apart.put_off(due.organization, own, "payment_stuck", due.payment, error)
            return
        self._away = True
        async with self._database.transaction() as session:
            now_ms = self._clock.now_ms()
            await self._fence(session, due)
            row = await _locked(session, due.payment)
            row.attempts += 1
            row.retry_at_ms = now_ms + min(RETRY_MS * 2 ** min(row.attempts, MAX_DOUBLINGS), MAX_RETRY_MS)
            if row.attempts == ALARM_AFTER:
                found = Finding("payment_provider_away", due.payment, str(error))
                await raise_alarms(session, [(due.organization, found)], now_ms)
                self._metrics.alarm_raised(found.kind)

    async def _fence(self, session: AsyncSession, due: Due) -> None:
        await self._leases.fence(session, {bucket_of(due.organization)})


async def _locked(session: AsyncSession, payment: str) -> Payment:
    return (await session.scalars(select(Payment).where(Payment.id == payment).with_for_update())).one()
