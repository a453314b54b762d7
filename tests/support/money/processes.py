"""The processes that move money: each with its own connections and memory, and one life."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from sqlalchemy import QueuePool

from support.fakes.clock import FrozenClock
from support.fakes.rate_cards import HOSTING_CARDS, rate_card
from support.money.faults import Fault, FragileDatabase, FragileRedis, Plan, Steps
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits, Principal
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.live_budgets import RedisBudgets
from tokenyard.limits.reservation_holds import ReservationHolds
from tokenyard.limits.revisions import RedisRevisions
from tokenyard.limits.sweeper import Sweeper
from tokenyard.metering.stream import USAGE_TOPIC, report_outbox, usage_carrier
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.tenancy.blocking import OrganizationBlocks
from tokenyard.tenancy.changes import TOPIC as TENANCY
from tokenyard.tenancy.changes import TenancyCarrier
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.store import TenancyStore, record
from tokenyard.webhooks.events import write_event
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.corrections.operator_store import CorrectionOperatorStore
from tokenyard_billing.dunning.schedule import DunningSchedule
from tokenyard_billing.invoicing.closing import ClosingTerms
from tokenyard_billing.invoicing.settling import InvoiceSettlements
from tokenyard_billing.loops import BillingWorker
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.taxes.operator_store import TaxRateOperatorStore
from tokenyard_billing.taxes.profiles import TaxProfiles
from tokenyard_billing.wallets.budgets import SqlBudgets
from tokenyard_billing.wallets.changes import TOPIC, BudgetCarrier
from tokenyard_billing.wallets.reservations import JobReservations
from tokenyard_billing.wallets.store import Wallet

LEASE_MS = 3_600_000  # nothing ends by itself: the test says when time has passed
CLEAR_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Surroundings:
    """What processes share."""

    redis_url: str
    database_url: str
    folder: Path
    clock: FrozenClock


@dataclass(frozen=True)
class Ending:
    """How an operation ended: with a value, an error, or not at all."""

    value: Any = None
    error: Exception | None = None
    died: bool = False

    @property
    def returned(self) -> bool:
        return self.error is None and not self.died


Then = Callable[[Ending], None]


class MoneyProcess:
    """Does one operation at a time; one that stalls goes on before the next begins, or when it is told to."""

    def __init__(self, around: Surroundings) -> None:
        self.steps = Steps()
        self.redis = FragileRedis.connected(around.redis_url, self.steps)
        self.database = FragileDatabase(around.database_url, self.steps)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._current: tuple[asyncio.Task[Any], Then] | None = None

    @property
    def dead(self) -> bool:
        return self.steps.dead

    @property
    def stalled(self) -> bool:
        return self._current is not None

    async def run(self, work: Callable[[], Coroutine[Any, Any, Any]], then: Then, plan: Plan | None = None) -> None:
        """Do `work`; `then` is told how it ended: now, or later where it stalls."""
        if self.stalled:
            await self.resume()
        if self.dead:
            then(Ending(died=True))
            return
        signal, others = self.steps.begin(plan), asyncio.all_tasks()
        self._current = (asyncio.create_task(work()), then)
        await self._watch(signal, others)

    async def resume(self, plan: Plan | None = None) -> None:
        """Let go on what has stalled."""
        signal, others = self.steps.begin(plan), asyncio.all_tasks()
        self.steps.resume()
        await self._watch(signal, others)

    async def kill(self) -> None:
        """End it like SIGKILL: nothing of it goes on, nothing is tidied up."""
        self.steps.dead = True
        tasks = {task for task in self._tasks if not task.done()}
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(CLEAR_TIMEOUT_S):
            await asyncio.gather(*tasks, return_exceptions=True)
        pool = self.database.engine.pool
        assert not isinstance(pool, QueuePool) or pool.checkedout() == 0, "a transaction is left open"
        self._unlock_files()
        await self.redis.aclose()
        await self.database.close()
        assert not [task for task in self._tasks if not task.done()]
        self._end(Ending(died=True))

    def _unlock_files(self) -> None:
        """Do what the kernel does for a process that is gone."""

    async def _watch(self, signal: "asyncio.Future[Fault]", others: set["asyncio.Task[Any]"]) -> None:
        assert self._current is not None
        task, _ = self._current
        await asyncio.wait({task, signal}, return_when=asyncio.FIRST_COMPLETED)
        self._tasks = {task for task in self._tasks | (asyncio.all_tasks() - others) if not task.done()}
        if self.dead:
            await self.kill()
        elif task.done():
            error = task.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            self._end(Ending(error=error) if error else Ending(task.result()))

    def _end(self, ending: Ending) -> None:
        if self._current is not None:
            (_, then), self._current = self._current, None
            self.steps.begin(None)
            then(ending)


async def principal_of(store: TenancyOperatorStore, key: ApiKeyId) -> Principal:
    """Return who calls with `key`, as SQL has it."""
    credential = await store.credential([key])
    assert credential is not None
    assert isinstance(credential.holder, Principal)
    return credential.holder


def _outbox(process: MoneyProcess, around: Surroundings) -> TransactionalOutbox:
    budgets = SqlBudgets(process.database)
    carrier = BudgetCarrier(budgets, RedisBudgets(process.redis), ReservationHolds(process.redis, budgets.load))
    handlers = {
        TOPIC: carrier.carry,
        TENANCY: TenancyCarrier(process.redis, RedisRevisions(process.redis)).carry,
        USAGE_TOPIC: usage_carrier(process.redis),
    }
    return TransactionalOutbox(process.database, process.redis, around.clock, handlers)


def _reservations(process: MoneyProcess, outbox: TransactionalOutbox, around: Surroundings) -> JobReservations:
    return JobReservations(
        database=process.database,
        outbox=outbox,
        holds=ReservationHolds(process.redis, SqlBudgets(process.database).load),
        limits=TenancyStore(process.database, around.clock),
        clock=around.clock,
    )


class GatewayProcess(MoneyProcess):
    """Admits and settles; gives credit and reserves for jobs."""

    def __init__(self, around: Surroundings, name: str) -> None:
        super().__init__(around)
        self.admission = RedisAdmission(
            self.redis,
            SqlBudgets(self.database).load,
            spool_folder=around.folder / name,
            lease_ms=LEASE_MS,
            renewal_ms=5_000,
        )
        self._outbox = _outbox(self, around)
        self._keys = TenancyStore(self.database, around.clock)
        self._organizations = TenancyOperatorStore(self.database, around.clock)
        self._cache: dict[ApiKeyId, Principal] = {}
        self.wallet = Wallet(self.database, self._outbox, write_event, around.clock)
        self.reservations = _reservations(self, self._outbox, around)

    async def principal(self, key: ApiKeyId, *, fresh: bool = True) -> Principal:
        """Return who calls with `key`: as SQL has it, or as it was when this process last looked."""
        if fresh or key not in self._cache:
            self._cache[key] = await principal_of(self._organizations, key)
        return self._cache[key]

    async def limit(self, organization: OrganizationId, scope: str, monthly_spend: int | None) -> None:
        """Change what a scope may spend in a month."""

        def changed(limits: Limits) -> Limits:
            return msgspec.structs.replace(limits, monthly_spend=monthly_spend)

        actor = ApiKeyId("operator")
        change: Any
        if scope == organization:
            change = self._organizations.change_organization(
                scope, name=None, limits=changed, archived=None, actor=actor
            )
        elif scope.startswith("proj_"):
            change = self._keys.change_project(
                organization, scope, name=None, limits=changed, archived=None, actor=actor
            )
        else:
            change = self._keys.change_key(organization, scope, name=None, limits=changed, actor=actor)
        _, messages = await change
        await self._outbox.try_to_carry(messages)

    async def round(self) -> None:
        """Do what its loops do every few seconds."""
        await self.admission._outbox.check()
        await self.admission.renew()

    def _unlock_files(self) -> None:
        self.admission._outbox._spool._end_file()


class ReplicaProcess(MoneyProcess):
    """Reports what it generated."""

    def __init__(self, around: Surroundings, name: str) -> None:
        super().__init__(around)
        self.outbox = report_outbox(self.redis, around.folder / name)

    def _unlock_files(self) -> None:
        self.outbox._spool._end_file()


CHEAP = rate_card("cheap", 4_102_444_800_000, output="0.20")
"""By which charges are rated anew; it starts in the year 2100."""
PRICES = PriceList((*HOSTING_CARDS, CHEAP))


class WorkerProcess(MoneyProcess):
    """Brings usage into the ledger, and tidies up after the others. No two workers ever have the same `name`."""

    def __init__(self, around: Surroundings, name: str) -> None:
        super().__init__(around)
        self.name = name
        self.outbox = _outbox(self, around)
        self.billing = BillingWorker(
            name=name,
            database=self.database,
            redis=self.redis,
            prices=PRICES,
            plans=TenancyOperatorStore(self.database, around.clock),
            outbox=self.outbox,
            live=RedisBudgets(self.redis),
            metrics=LedgerMetrics(CollectorRegistry()),
            clock=around.clock,
            report_wait_ms=LEASE_MS,
            lease_ms=LEASE_MS,
            renewal_ms=0,
            # Closed while it runs: everything then comes late.
            terms=ClosingTerms(-32 * DAY_MS, 30 * DAY_MS, "tokenyard", "INV", "CN", payable=NanoDollars(1_000)),
            audit=record,
            events=write_event,
            blocking=OrganizationBlocks(),
            dunning=DunningSchedule(()),
            provider=None,
        )
        self.corrections = CorrectionOperatorStore(self.database, PRICES, record, around.clock)
        self.tax_rates = TaxRateOperatorStore(self.database, record, around.clock)
        self.tax_profiles = TaxProfiles(self.database, record, around.clock)
        self.settlements = InvoiceSettlements(
            database=self.database,
            audit=record,
            events=write_event,
            clock=around.clock,
            blocking=OrganizationBlocks(),
            outbox=self.outbox,
        )
        self.sweeper = Sweeper(self.redis, renewal_ms=0, before=self.outbox.step)
        self.reservations = _reservations(self, self.outbox, around)

    async def close(self) -> None:
        """Note how far the streams were read, draw what is marked, and close what may close."""
        self.billing.leases._renew_at = 0.0
        await self.consume()
        await self.billing.drafter.step()
        await self.billing.closer.step()

    async def consume(self) -> None:
        """Do one round of the consumer; enough time has passed to look for orphans."""
        self.billing.consumer._open_requests._looked_at_ms = 0
        await self.billing.consumer.step()
