"""Books whose days are sealed at a clock that is moved by hand."""

from typing import Any

from redis.asyncio import Redis
from sqlalchemy import text, update

from support.billing.stand import ACME, MARCH_MS, PROJECT, rows
from support.billing.tax_books import TaxBooks
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import PRICE_LEAD_MS
from tokenyard.core.principal import Limits
from tokenyard.metering.events import UsageEvent
from tokenyard.metering.stream import emit
from tokenyard.storage.database import Database
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.operator_store import PlanChoice, TenancyOperatorStore
from tokenyard.tenancy.plans.operator_store import PlanOperatorStore
from tokenyard.tenancy.plans.views import NewPlan
from tokenyard.tenancy.tables import OrganizationRow
from tokenyard_billing.loops import BillingWorker
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.sealing.operator_store import SealOperatorStore
from tokenyard_billing.sealing.recomputing import SealDifference
from tokenyard_billing.sealing.tables import Seal
from tokenyard_billing.tables import BucketLease, Charge, Transaction

_REDIS_YEAR_MS = MARCH_MS + 200 * DAY_MS  # no clock of a test comes so far


class SealBooks(TaxBooks):
    """What the ledger takes in is recorded at the time of Redis: that is put back to the clock's."""

    def __init__(self, database: Database, redis: Redis) -> None:
        super().__init__(database, redis)
        self.proofs = SealOperatorStore(database)

    async def use(self, amount: int, organization: OrganizationId = ACME, *, at_ms: int | None = None) -> None:
        await super().use(amount, organization, at_ms=self.clock.now_ms() if at_ms is None else at_ms)
        await self.put_back()

    async def take(self, *events: UsageEvent, organization: OrganizationId = ACME) -> None:
        for event in events:
            await emit(self.redis, organization, event)
        await self.worker.consumer.step()
        await self.put_back()

    async def put_back(self) -> None:
        async with self.database.transaction() as session:
            for table, column in ((Charge, "charged_at_ms"), (Transaction, "posted_at_ms")):
                late = getattr(table, column) >= _REDIS_YEAR_MS
                await session.execute(update(table).where(late).values({column: self.clock.now_ms()}))

    async def pass_days(self, days: int = 1) -> None:
        self.clock.advance(days * DAY_MS / 1000)

    async def seal(self, worker: BillingWorker | None = None) -> list[Seal]:
        """Let a worker hold its buckets, and seal; return all seals."""
        sealing = worker or self.worker
        await sealing.consumer.step()
        await sealing.sealer.step()
        return await self.seals()

    async def seals(self) -> list[Seal]:
        return sorted(await rows(self.database, Seal), key=lambda one: str(one.day))

    async def verified(self, first: str = "", last: str = "9999-12-31") -> SealDifference | None:
        return (await self.proofs.verify(first, last)).difference

    async def seal_differences(self) -> set[tuple[str, str]]:
        return {one for one in await self.broken() if one[0].startswith("seal_")}

    async def tamper(self, statement: str, **values: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(text(statement), values)

    async def subscribe(self, multiplier: str, fee: str) -> None:
        """Let `acme` have a plan from a moment from now on: prices are multiplied, and each month has a fee."""
        async with self.database.transaction() as session:
            whose = {"slug": "acme", "name": "", "default_project_id": PROJECT, "limits": Limits()}
            session.add(OrganizationRow(id=ACME, created_at=MARCH_MS // 1000 - 1, **whose))
        body = {"name": "team", "price_multiplier": multiplier, "monthly_fee_dollars": fee}
        plan = NewPlan.model_validate(body).stated()
        await PlanOperatorStore(self.database, self.clock).create(plan, actor=BOOTSTRAP)
        await TenancyOperatorStore(self.database, self.clock).change_organization(
            ACME, name=None, limits=None, archived=None, actor=BOOTSTRAP, plan=PlanChoice("team")
        )
        self.clock.advance(PRICE_LEAD_MS / 1000)

    async def lose_lease(self) -> None:
        """Let every lease run out, as that of a worker that is dead."""
        async with self.database.transaction() as session:
            await session.execute(update(BucketLease).values(holder="", lease_until_ms=0))
