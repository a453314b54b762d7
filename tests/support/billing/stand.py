"""A worker's billing for tests: real SQL and Valkey, real rate cards, usage events made to order."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from sqlalchemy import func, select

from support.fakes.rate_cards import SHIPPED_CARDS, SHIPPED_MODEL
from support.money.live_budgets import add_pending, read_budget
from tokenyard.core.budgets import monthly, wallet
from tokenyard.core.clock import Clock, SystemClock
from tokenyard.core.ids import AdapterId, ApiKeyId, AttemptId, JobId, OrganizationId, PriceId, ProjectId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, budget, usage_stream
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.limits.budget_figures import NO_LEDGER
from tokenyard.limits.budget_reader import RedisBudgetReader
from tokenyard.limits.live_budgets import RedisBudgets
from tokenyard.limits.reservation_holds import ReservationHolds
from tokenyard.limits.revisions import RedisRevisions
from tokenyard.metering.events import (
    HOUR_MS,
    AdapterHosted,
    HoldExpired,
    Outcome,
    ReplicaReported,
    Settled,
    StorageHeld,
    TrainingFinished,
    UsageEvent,
    organization_of,
)
from tokenyard.metering.stream import emit
from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.tenancy.blocking import OrganizationBlocks
from tokenyard.tenancy.changes import TOPIC as TENANCY
from tokenyard.tenancy.changes import TenancyCarrier
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.store import record
from tokenyard.webhooks.events import write_event
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.charging.intake import Intake
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.dunning.schedule import DunningSchedule
from tokenyard_billing.invoicing.closing import ClosingTerms
from tokenyard_billing.loops import BillingWorker
from tokenyard_billing.payments.ports import PaymentProvider
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.pricing.price_book import TOPIC as PUBLISHED
from tokenyard_billing.pricing.price_book import price_carrier
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.proof.reconcile import HOLD_GRACE_S, LedgerReconciler
from tokenyard_billing.tables import Balance, Charge, Entry
from tokenyard_billing.wallets.budgets import SqlBudgets
from tokenyard_billing.wallets.changes import TOPIC, BudgetCarrier

MODEL = SHIPPED_MODEL
PRICE = PriceId(f"2026-01-01/{MODEL}")
ACME = OrganizationId("org_acme")
GLOBEX = OrganizationId("org_globex")
PROJECT = ProjectId("proj_1")
KEY = ApiKeyId("key_1")
MARCH_MS = 1_772_500_000_000  # 2026-03-03
WAIT_MS = 60_000
PRICES = PriceList(SHIPPED_CARDS)
TERMS = ClosingTerms(DAY_MS, 30 * DAY_MS, "tokenyard", "INV", "CN", payable=NanoDollars(1))
"""Nothing is rounded, so that few nano-dollars say much; `CENTS` is as it is in earnest."""
CENTS = ClosingTerms(DAY_MS, 30 * DAY_MS, "tokenyard", "INV", "CN")
RATE = PRICES.by_id(PRICE)


class FixedLimits:
    """`ports.SpendingLimits` for tests."""

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        self.limits = dict(limits or {})

    async def monthly_limits(
        self, organization: OrganizationId, project: ProjectId, key: ApiKeyId
    ) -> Mapping[str, NanoDollars]:
        return {scope: NanoDollars(limit) for scope, limit in self.limits.items()}


class FixedJobs:
    """`ports.UnfinishedJobs` for tests."""

    def __init__(self, *alive: str) -> None:
        self.alive = {JobId(job) for job in alive}

    async def unfinished(self, jobs: Collection[JobId], *, since_ms: int) -> set[JobId]:
        return self.alive.intersection(jobs)


def reconciler(
    database: Database,
    redis: Redis,
    *,
    jobs: FixedJobs | None = None,
    clock: Clock | None = None,
    hold_grace_s: float = HOLD_GRACE_S,
) -> LedgerReconciler:
    """The checks as `bootstrap` makes them, with a short pause between two looks."""
    reader = RedisBudgetReader(redis)
    known, time = jobs or FixedJobs(), clock or SystemClock()
    return LedgerReconciler(database, redis, reader, known, time, pause_s=0.05, hold_grace_s=hold_grace_s)


def budget_outbox(database: Database, redis: Redis, clock: Clock | None = None) -> TransactionalOutbox:
    """The outbox that brings changes of budgets, prices and organizations to Redis, as `bootstrap` makes it."""
    budgets = SqlBudgets(database)
    carrier = BudgetCarrier(budgets, RedisBudgets(redis), ReservationHolds(redis, budgets.load))
    handlers = {
        TOPIC: carrier.carry,
        PUBLISHED: price_carrier(redis),
        TENANCY: TenancyCarrier(redis, RedisRevisions(redis)).carry,
    }
    return TransactionalOutbox(database, redis, clock or SystemClock(), handlers)


class EagerLeases(BucketLeases):
    """Leases that need no time to pass."""

    async def hold_now(self) -> frozenset[int]:
        """Renew, take and give up at once."""
        self._renew_at = 0.0
        return await self.hold({})


def worker(
    database: Database,
    redis: Redis,
    *,
    name: str = "worker-1",
    clock: Clock | None = None,
    prices: PriceList | None = None,
    report_wait_ms: int = WAIT_MS,
    renewal_ms: int = 50,
    lease_ms: int = 1_000,
    terms: ClosingTerms = TERMS,
    dunning: DunningSchedule | None = None,
    provider: PaymentProvider | None = None,
) -> BillingWorker:
    return BillingWorker(
        name=name,
        database=database,
        redis=redis,
        prices=prices or PriceList(SHIPPED_CARDS),
        plans=TenancyOperatorStore(database, clock or SystemClock()),
        outbox=budget_outbox(database, redis, clock),
        live=RedisBudgets(redis),
        metrics=LedgerMetrics(CollectorRegistry()),
        clock=clock or SystemClock(),
        report_wait_ms=report_wait_ms,
        lease_ms=lease_ms,
        renewal_ms=renewal_ms,
        terms=terms,
        audit=record,
        events=write_event,
        blocking=OrganizationBlocks(),
        dunning=dunning or DunningSchedule(()),
        provider=provider,
    )


def intake(database: Database, prices: PriceList = PRICES, *, report_wait_ms: int = WAIT_MS) -> Intake:
    return Intake(prices, TenancyOperatorStore(database, SystemClock()), report_wait_ms=report_wait_ms)


def claims(request: str, attempt: int = 1, organization: OrganizationId = ACME, **changes: Any) -> MeterClaims:
    made = MeterClaims(
        attempt=AttemptId(f"{request}.{attempt}"),
        organization=organization,
        project=PROJECT,
        key=KEY,
        model=MODEL,
        base_model=MODEL,
        price=PRICE,
        admitted_at_ms=MARCH_MS,
        endpoint="/v1/chat/completions",
        budgets=(wallet(organization),),
    )
    return msgspec.structs.replace(made, **changes)


def usage(prompt: int, completion: int, cached: int = 0) -> TokenUsage:
    return TokenUsage(prompt, completion, cached)


def settled(made: MeterClaims, count: TokenUsage, outcome: Outcome = Outcome.COMPLETED) -> Settled:
    return Settled(made, outcome, count, MARCH_MS + 2_000)


def reported(made: MeterClaims, count: TokenUsage, *, finished: bool = True) -> ReplicaReported:
    return ReplicaReported(made, count, "replica-1", finished, MARCH_MS + 1_900)


def expired(made: MeterClaims) -> HoldExpired:
    return HoldExpired(made, MARCH_MS + 30_000)


def trained(job: str, tokens: int, organization: OrganizationId = ACME) -> TrainingFinished:
    names = (wallet(organization),)
    return TrainingFinished(organization, PROJECT, KEY, JobId(job), MODEL, MODEL, PRICE, tokens, MARCH_MS, names)


def hosted(
    adapter: str, hour: int = 0, organization: OrganizationId = ACME, *, pinned: bool = False, model: str = "ft:own"
) -> AdapterHosted:
    """An hour of a fine-tune, the so many-th behind that of `MARCH_MS`."""
    at_ms = (MARCH_MS // HOUR_MS + hour) * HOUR_MS
    return AdapterHosted(organization, PROJECT, KEY, AdapterId(adapter), model, MODEL, at_ms, pinned)


def kept(number: int, hour: int = 0, organization: OrganizationId = ACME) -> StorageHeld:
    """The so many-th gigabyte that was kept for a month, complete the so many-th hour behind that of `MARCH_MS`."""
    return StorageHeld(organization, number, (MARCH_MS // HOUR_MS + hour) * HOUR_MS)


async def send(redis: Redis, *events: UsageEvent) -> None:
    for event in events:
        await emit(redis, organization_of(event), event)


async def charges(database: Database) -> dict[str, Charge]:
    async with database.reading() as session:
        return {row.charge_key: row for row in await session.scalars(select(Charge))}


async def rows(database: Database, table: Any) -> list[Any]:
    async with database.reading() as session:
        return list(await session.scalars(select(table)))


async def balance(database: Database, organization: OrganizationId, account: str = "wallet") -> int:
    async with database.reading() as session:
        row = await session.get(Balance, (organization, account))
        return row.amount if row else 0


async def journal_sum(database: Database) -> int:
    async with database.reading() as session:
        return int(await session.scalar(select(func.coalesce(func.sum(Entry.amount), 0))) or 0)


async def live_budget(redis: Redis, organization: OrganizationId, name: str | None = None) -> dict[str, int]:
    """Return a budget's figures; none where Redis does not have it, and no ledger figure where it is not loaded."""
    bucket, name = bucket_of(organization), name or wallet(organization)
    if not await redis.exists(budget(bucket, name)):
        return {}
    figures = await read_budget(redis, bucket, name)
    loaded = {} if figures.version == NO_LEDGER else {"ledger": figures.ledger, "version": figures.version}
    return {**loaded, "pending": figures.pending, "held": figures.held}


async def put_pending(
    redis: Redis, organization: OrganizationId, key: str, amount: int, name: str | None = None
) -> None:
    """Do to one budget what settling does."""
    await add_pending(redis, bucket_of(organization), name or wallet(organization), key, amount)


async def stream_length(redis: Redis, organization: OrganizationId) -> int:
    return int(await redis.xlen(usage_stream(bucket_of(organization))))


def month(scope: str) -> str:
    return monthly(scope, MARCH_MS)
