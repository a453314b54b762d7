"""Charges what plans ask, period by period, in the buckets that this worker leases."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import FeeStep
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.loops import Loop
from tokenyard_billing.apart import BATCH, Apart, Due
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.calendars import add_periods, load_calendar
from tokenyard_billing.charging.batch import LedgerBatch
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.invoice_tables import BillingPeriod
from tokenyard_billing.periods import BillingCalendar
from tokenyard_billing.plan_fees.charging import fees_to_charge
from tokenyard_billing.plan_fees.proration import asking_periods
from tokenyard_billing.ports import PlanFees
from tokenyard_billing.pricing.prices import PriceList

INTERVAL_S = 600.0


class PlanFeeCharger:
    """Fees are charged when their period closes; its step opens periods in which nothing is used but a plan asks."""

    def __init__(
        self,
        *,
        database: Database,
        leases: BucketLeases,
        prices: PriceList,
        plans: PlanFees,
        outbox: TransactionalOutbox,
        metrics: LedgerMetrics,
        clock: Clock,
    ) -> None:
        self._database = database
        self._leases = leases
        self._prices = prices
        self._plans = plans
        self._outbox = outbox
        self._clock = clock
        self._apart = Apart(database, leases, metrics, clock)

    def loop(self) -> Loop:
        return Loop("open periods with fees", self.step, INTERVAL_S)

    async def step(self) -> None:
        await self._apart.each("open periods with fees", self._with_fees, self._open_periods, self._put_off)

    async def charge(self, organization: OrganizationId, period: str) -> None:
        """Charge what plans asked for `period`, of which all else is charged; again charges nothing more.

        Where a plan asks something for an earlier period that is open, or was not even begun, that comes first.
        """
        async with self._database.transaction() as session:
            now_ms = self._clock.now_ms()
            await self._leases.fence(session, {bucket_of(organization)})
            steps, calendar = await self._open(session, organization, now_ms)
            waiting = (BillingPeriod.organization == organization) & BillingPeriod.closed_at_ms.is_(None)
            batch = LedgerBatch(self._prices, {}, now_ms)
            if await session.scalar(select(func.min(BillingPeriod.period)).where(waiting)) == period:
                for fee in await fees_to_charge(session, organization, period, steps, calendar):
                    batch.charge_fee(fee)
            messages = (await batch.write(session)).messages
        await self._outbox.try_to_carry(messages)

    async def _with_fees(self, after: str) -> Sequence[Due]:
        async with self._database.reading() as session:
            return [Due(one) for one in await self._plans.with_fees(session, after=after, limit=BATCH)]

    async def _open_periods(self, due: Due) -> None:
        if bucket_of(due.organization) not in self._leases.held:
            return
        async with self._database.transaction() as session:
            await self._leases.fence(session, {bucket_of(due.organization)})
            await self._open(session, due.organization, self._clock.now_ms())

    async def _put_off(self, due: Due, error: Exception) -> None:
        await self._apart.put_off(due.organization, None, "periods_not_opened", due.organization, error)

    async def _open(
        self, session: AsyncSession, organization: OrganizationId, now_ms: int
    ) -> tuple[Sequence[FeeStep], BillingCalendar]:
        steps = await self._plans.fee_steps(session, organization)
        calendar = await load_calendar(session, organization)
        periods = ((organization, period) for period in asking_periods(steps, calendar, now_ms))
        await add_periods(session, {organization: calendar}, periods, now_ms)
        return steps, calendar
