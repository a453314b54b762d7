"""Books in full swing that agree: credit, charges, jobs, and requests in every stage on their way to the ledger."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec
from redis.asyncio import Redis
from sqlalchemy import text

from support.billing.invoice_books import CHEAP
from support.billing.stand import (
    ACME,
    GLOBEX,
    KEY,
    PROJECT,
    RATE,
    WAIT_MS,
    FixedJobs,
    FixedLimits,
    budget_outbox,
    claims,
    hosted,
    kept,
    reconciler,
    reported,
    send,
    settled,
    trained,
    usage,
    worker,
)
from support.fakes.admission_requests import open_buckets
from support.fakes.rate_cards import SHIPPED_CARDS
from tokenyard.core.admission import AdmissionRequest
from tokenyard.core.budgets import budgets_of
from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import ApiKeyId, JobId, OrganizationId, ProjectId, new_request_id
from tokenyard.core.money import NanoDollars, inference_cost
from tokenyard.core.principal import Principal
from tokenyard.core.usage import MeterClaims
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.reservation_holds import ReservationHolds
from tokenyard.metering.events import HOUR_MS, Outcome
from tokenyard.storage.database import Database
from tokenyard.tenancy.store import record
from tokenyard.webhooks.events import write_event
from tokenyard_billing.corrections.operator_store import CorrectionOperatorStore
from tokenyard_billing.corrections.selection import Scope
from tokenyard_billing.periods import month_of
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.proof.views import Reconciliation
from tokenyard_billing.wallets.budgets import SqlBudgets
from tokenyard_billing.wallets.reservations import JobReservations
from tokenyard_billing.wallets.store import Wallet

CREDIT = 10**12
HELD = 10**7
USED = usage(10, 5)
COST = inference_cost(RATE, USED)
LEASE_MS = 600_000
CALLERS = {
    ACME: Principal(ACME, PROJECT, KEY, 1),
    GLOBEX: Principal(GLOBEX, ProjectId("proj_2"), ApiKeyId("key_2"), 1),
}


class BusyBooks:
    """Use as `async with`: its gateway renews holds. `month` is the one that everything falls into."""

    def __init__(self, database: Database, redis: Redis, spool: Path, *, report_wait_ms: int = WAIT_MS) -> None:
        self.database = database
        self.redis = redis
        self.clock = SystemClock()
        self.outbox = budget_outbox(database, redis)
        prices = PriceList((*SHIPPED_CARDS, CHEAP))
        self.worker = worker(database, redis, report_wait_ms=report_wait_ms, prices=prices)
        self.corrections = CorrectionOperatorStore(database, prices, record, self.clock)
        self.wallet = Wallet(database, self.outbox, write_event, self.clock)
        budgets = SqlBudgets(database)
        self.gateway = RedisAdmission(redis, budgets.load, spool_folder=spool, lease_ms=LEASE_MS, renewal_ms=5_000)
        self.reservations = JobReservations(
            database=database,
            outbox=self.outbox,
            holds=ReservationHolds(redis, budgets.load),
            limits=FixedLimits({ACME: CREDIT, KEY: CREDIT}),
            clock=self.clock,
        )
        self.month = month_of(self.clock.now_ms())

    async def __aenter__(self) -> Self:
        await open_buckets(self.redis)
        await self.gateway.__aenter__()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        await self.gateway.__aexit__()

    async def fill(self) -> None:
        """Bring requests and jobs into every stage: charged, wasted, open, held, and still in the stream."""
        for organization, requests in ((ACME, ("req_a", "req_b")), (GLOBEX, ("req_x", "req_y"))):
            await self.grant(organization)
            for request in requests:
                made = await self.admit(request, organization)
                await self.settle(made)
                await send(self.redis, reported(made, USED), reported(_retried(made), usage(2, 1)))
        await self.reserve("ftjob-open", 5_000_000)
        await self.reserve("ftjob-done", 2_000_000)
        await self.train("ftjob-done")
        await self.settle(await self.admit("req_left"), Outcome.CLIENT_LEFT)
        await self.worker.consumer.step()
        await self.worker.drafter.step()
        await self.admit("req_held")
        await self.settle(await self.admit("req_new"))

    async def grant(self, organization: OrganizationId = ACME, key: str = "first") -> None:
        amount = NanoDollars(CREDIT)
        await self.wallet.grant(organization, amount, reason="paid", actor="op", idempotency_key=key)

    async def correct(self, organization: OrganizationId, card: str | None, *, last_ms: int) -> None:
        """Ask that what was used in the last moments is taken back, or rated anew by a card."""
        scope = Scope(since_ms=self.clock.now_ms() - last_ms)
        with suppress(InvalidRequest):  # nothing was used
            await self.corrections.request(
                organization, scope, card, reason="wrong", actor=KEY, idempotency_key=new_request_id()
            )

    async def reserve(self, job: str, amount: int) -> None:
        await self.reservations.reserve(ACME, PROJECT, KEY, {JobId(job): NanoDollars(amount)})

    async def train(self, job: str) -> None:
        """Let the job end, with what its charge is made of."""
        await send(self.redis, msgspec.structs.replace(trained(job, 10), admitted_at_ms=self.clock.now_ms()))

    async def host(self, adapter: str) -> None:
        """Let an hour begin in which the adapter is live."""
        hour_ms = self.clock.now_ms() // HOUR_MS * HOUR_MS
        await send(self.redis, msgspec.structs.replace(hosted(adapter), admitted_at_ms=hour_ms))

    async def keep(self, organization: OrganizationId, number: int) -> None:
        """Let a gigabyte be kept for one more month, the `number`-th."""
        hour_ms = self.clock.now_ms() // HOUR_MS * HOUR_MS
        await send(self.redis, msgspec.structs.replace(kept(number, organization=organization), admitted_at_ms=hour_ms))

    async def admit(
        self,
        request: str,
        organization: OrganizationId = ACME,
        *,
        gateway: RedisAdmission | None = None,
        server: str = "",
    ) -> MeterClaims:
        caller = CALLERS[organization]
        whose: dict[str, Any] = {"project": caller.project, "key": caller.key, "server": server}
        made = claims(request, 1, organization, admitted_at_ms=0, budgets=(), **whose)
        limits = dict.fromkeys((organization, caller.key), NanoDollars(CREDIT))
        budgets = budgets_of(organization, limits, self.clock.now_ms())
        asked = AdmissionRequest(caller, made, 100, NanoDollars(HELD), budgets)
        return (await (gateway or self.gateway).admit(asked)).claims

    async def settle(self, made: MeterClaims, outcome: Outcome = Outcome.COMPLETED) -> None:
        await self.gateway.settle(settled(made, USED, outcome), COST)

    async def tamper(self, statement: str) -> None:
        """Change a row behind everybody's back; `transaction` is a word of SQL's too."""
        async with self.database.transaction() as session:
            await session.execute(text(statement.replace("transaction =", '"transaction" =')))

    async def reconcile(self, *alive: str, hold_grace_s: float = 60.0) -> Reconciliation:
        jobs = FixedJobs("ftjob-open", *alive)
        return await reconciler(self.database, self.redis, jobs=jobs, hold_grace_s=hold_grace_s).reconcile()

    async def broken(self, *, hold_grace_s: float = 60.0) -> set[tuple[str, str]]:
        """Return name and subject of every difference that must never be."""
        found = await self.reconcile(hold_grace_s=hold_grace_s)
        assert found.ok is not any(one.broken for one in found.differences)
        return {(one.name, one.subject) for one in found.differences if one.broken}


def _retried(made: MeterClaims) -> MeterClaims:
    """Another attempt at the same request."""
    return msgspec.structs.replace(made, attempt=type(made.attempt)(f"{made.attempt.rpartition('.')[0]}.2"))
