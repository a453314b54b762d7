"""Buys credit by stored methods for organizations of which little is left, in the buckets that this worker leases."""

from sqlalchemy import Select, and_, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop
from tokenyard_billing.apart import BATCH, RETRY_MS, Apart, Due
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.invoicing.closing import CLOSER
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.payments.collecting import new_payment
from tokenyard_billing.payments.posting import LIVE, SUCCEEDED
from tokenyard_billing.payments.tables import Payment, PaymentCustomer
from tokenyard_billing.periods import TIME_ZONE, month_of, period_start_ms
from tokenyard_billing.ports import Blocking
from tokenyard_billing.tables import Balance
from tokenyard_billing.top_ups.automatic import KEYS, bought_by_itself, is_refused
from tokenyard_billing.top_ups.tables import AutomaticTopUp

INTERVAL_S = 2.0


class AutomaticTopUpLoop:
    """Writes down what is to be bought; the loop of payments asks the provider for it.

    Nothing is bought for an organization that could not use it: `blocking` knows.
    """

    def __init__(
        self,
        *,
        database: Database,
        leases: BucketLeases,
        metrics: LedgerMetrics,
        clock: Clock,
        provider: str,
        blocking: Blocking,
    ) -> None:
        self._database = database
        self._leases = leases
        self._clock = clock
        self._provider = provider
        self._blocking = blocking
        self._apart = Apart(database, leases, metrics, clock)

    def loop(self) -> Loop:
        return Loop("automatic top-ups", self.step, INTERVAL_S)

    async def step(self) -> None:
        await self._apart.each("automatic top-ups", self._due, self._buy, self._put_off)

    async def _due(self, after: str) -> list[Due]:
        wanted = AutomaticTopUp.bucket.in_(self._leases.held), AutomaticTopUp.organization > after
        part = self._wanting().where(*wanted).order_by(AutomaticTopUp.organization).limit(BATCH)
        async with self._database.reading() as session:
            return [Due(OrganizationId(top_up.organization)) for top_up, _ in await session.execute(part)]

    def _wanting(self) -> Select[AutomaticTopUp, PaymentCustomer]:
        """Return a query of those of which less is left than they want, and of whom they are to the provider."""
        now_ms = self._clock.now_ms()
        month_ms = period_start_ms(month_of(now_ms), TIME_ZONE)
        left = and_(Balance.organization == AutomaticTopUp.organization, Balance.account == AccountName.WALLET.value)
        this_month = Payment.state.in_([*LIVE, SUCCEEDED]), Payment.created_at_ms >= month_ms
        sum_bought = select(func.coalesce(func.sum(Payment.amount), 0)).where(bought_by_itself(), *this_month)
        bought = sum_bought.correlate(AutomaticTopUp)
        return (
            select(AutomaticTopUp, PaymentCustomer)
            .join(PaymentCustomer, PaymentCustomer.organization == AutomaticTopUp.organization)
            .outerjoin(Balance, left)
            .where(
                AutomaticTopUp.retry_at_ms <= now_ms,
                PaymentCustomer.provider == self._provider,
                PaymentCustomer.default_method.is_not(None),
                func.coalesce(Balance.amount, 0) < AutomaticTopUp.threshold,
                bought.scalar_subquery() + AutomaticTopUp.amount <= AutomaticTopUp.month_limit,
                ~exists().where(bought_by_itself(), Payment.state.in_(LIVE)),
                ~exists().where(bought_by_itself(), is_refused()),
            )
        )

    async def _buy(self, due: Due) -> None:
        async with self._database.transaction() as session:
            await self._fence(session, due)
            own = AutomaticTopUp.organization == due.organization
            await session.execute(select(AutomaticTopUp.organization).where(own).with_for_update())
            found = (await session.execute(self._wanting().where(own))).first()
            if found is None:
                return
            top_up, customer = found
            if await self._blocking.is_closed(session, due.organization):
                top_up.retry_at_ms = self._clock.now_ms() + RETRY_MS
                return
            # Not before what it follows, whose time another machine's clock gave: a refusal of it would not count.
            created_at_ms = max(self._clock.now_ms(), top_up.changed_at_ms, customer.method_at_ms)
            earlier = await session.scalar(select(func.count()).where(bought_by_itself(due.organization)))
            amount, key = NanoDollars(top_up.amount), f"{KEYS}{earlier}"
            session.add(new_payment(customer, amount, key, actor=CLOSER, at_ms=created_at_ms))

    async def _put_off(self, due: Due, error: Exception) -> None:
        own = update(AutomaticTopUp).where(AutomaticTopUp.organization == due.organization)
        await self._apart.put_off(due.organization, own, "automatic_top_up_failed", due.organization, error)

    async def _fence(self, session: AsyncSession, due: Due) -> None:
        await self._leases.fence(session, {bucket_of(due.organization)})
