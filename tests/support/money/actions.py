"""Everything that can happen to money, each done by one process that may die over it; and what tenants learn by it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from redis.exceptions import RedisError
from sqlalchemy import select

from support.billing.stand import MODEL, PRICE, RATE
from support.money.faults import Plan
from support.money.model import NOTHING, Job, LetIn, Tenant
from support.money.processes import Ending, GatewayProcess, MoneyProcess, Then, WorkerProcess
from support.money.stand import MoneyStand
from tokenyard.core.admission import AdmissionRequest, PrincipalOutdated
from tokenyard.core.budgets import budgets_of
from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import BudgetInUse, Conflict, InvalidRequest, QuotaExceeded, Unavailable
from tokenyard.core.ids import AdapterId, ApiKeyId, AttemptId, JobId
from tokenyard.core.money import NanoDollars, worst_case_cost
from tokenyard.core.principal import Principal
from tokenyard.core.redis_keys import usage_stream
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import (
    HOUR_MS,
    AdapterHosted,
    Outcome,
    ReplicaReported,
    Settled,
    StorageHeld,
    encode_event,
)
from tokenyard.metering.stream import USAGE_TOPIC
from tokenyard.storage.transactional_outbox import write_message
from tokenyard_billing.bucket_leases import LeaseLost
from tokenyard_billing.charging.consumer import RETRY_MS
from tokenyard_billing.corrections.selection import Scope
from tokenyard_billing.invoice_tables import Invoice

REFUSED = (QuotaExceeded, BudgetInUse)
ROUNDS = 20  # within which all comes to rest


class MoneyActions:
    def __init__(self, stand: MoneyStand) -> None:
        self.stand = stand
        self.told = stand.told
        self._numbers = 0
        self._seen: dict[tuple[int, bytes], dict[Any, Any]] = {}

    # Tenants

    async def grant(
        self,
        tenant: Tenant,
        amount: int,
        gateway: GatewayProcess,
        *,
        again: str | None = None,
        plan: Plan | None = None,
    ) -> None:
        """Give credit; `again` is the idempotency key of a grant that nobody knows the end of."""
        key = again or f"grant{self._number()}"
        amount = tenant.asked.setdefault(key, amount)

        def then(ending: Ending) -> None:
            if ending.returned:
                tenant.granted[key] = amount

        await self._run(
            gateway,
            lambda: gateway.wallet.grant(
                tenant.organization, NanoDollars(amount), reason="paid", actor="op", idempotency_key=key
            ),
            then,
            plan,
        )

    async def limit(
        self, tenant: Tenant, scope: str, limit: int | None, gateway: GatewayProcess, *, plan: Plan | None = None
    ) -> None:
        await self._run(gateway, lambda: gateway.limit(tenant.organization, scope, limit), _nothing, plan)

    async def admit(
        self,
        key: ApiKeyId,
        gateway: GatewayProcess,
        *,
        most: TokenUsage,
        used: TokenUsage,
        attempts: int = 1,
        fresh: bool = True,
        plan: Plan | None = None,
    ) -> None:
        """Let a request in that may use `most` and will use `used`; not `fresh`, by what the gateway still knows."""
        name = f"req{self._number()}_of_{key}"
        amount = worst_case_cost(RATE, prompt_tokens=most.prompt_tokens, completion_tokens=most.completion_tokens)

        async def admit() -> MeterClaims:
            principal = await gateway.principal(key, fresh=fresh)
            request = request_of(principal, name, amount, most.total_tokens)
            return (await gateway.admission.admit(request)).claims

        def then(ending: Ending) -> None:
            if ending.returned:
                self.told.requests[name] = LetIn(name, gateway, ending.value, amount, used, attempts)

        await self._run(gateway, admit, then, plan, *REFUSED, PrincipalOutdated, *((Unavailable,) if plan else ()))

    async def settle(self, one: LetIn, outcome: Outcome, counted: TokenUsage, *, plan: Plan | None = None) -> None:
        """The request ends, as its gateway saw it."""
        one.outcome, one.counted = outcome, NOTHING if outcome is Outcome.FAILED else counted
        attempt = AttemptId(f"{one.id}.{one.attempts}")
        claims = one.claims if one.attempts == 1 else _with(one.claims, attempt)
        event = Settled(claims, outcome, one.counted, claims.admitted_at_ms + 1)

        def then(ending: Ending) -> None:
            one.certain = ending.returned

        async def settle() -> None:
            await one.gateway.admission.settle(event, NanoDollars(one.cost))

        await self._run(one.gateway, settle, then, plan)

    async def report(self, one: LetIn, attempt: int, *, plan: Plan | None = None) -> None:
        """The replica says what an attempt used."""
        one.reported.add(attempt)
        claims = _with(one.claims, AttemptId(f"{one.id}.{attempt}"))
        finished = attempt == one.attempts
        report = ReplicaReported(claims, one.usage_of(attempt), "replica", finished, claims.admitted_at_ms + 1)
        replica = self.stand.replica

        async def send() -> None:
            await replica.outbox.send(report)

        await self._run(replica, send, _nothing, plan)

    # Jobs

    async def reserve(
        self, tenant: Tenant, key: ApiKeyId, gateway: GatewayProcess, *tokens: int, plan: Plan | None = None
    ) -> None:
        """Money is asked for at once, for a job of each of these tokens."""
        jobs = [Job(JobId(f"job{self._number()}_of_{tenant.organization}"), tenant, key, each) for each in tokens]
        amounts = {job.id: job.amount for job in jobs}
        self.told.jobs |= {job.id: job for job in jobs}

        def then(ending: Ending) -> None:
            for job in jobs:
                if ending.returned:
                    job.reserved = True
                elif isinstance(ending.error, REFUSED):
                    job.reserved = False

        await self._run(
            gateway,
            lambda: gateway.reservations.reserve(tenant.organization, tenant.project, key, amounts),
            then,
            plan,
            *REFUSED,
            Unavailable,
        )

    async def finish(self, job: Job, tokens: int) -> None:
        """The job ends, and its usage is saved with it."""
        job.trained = tokens
        event = job.finished(tokens, self.stand.clock.now_ms())
        async with self.stand.database.transaction() as session:
            await write_message(session, USAGE_TOPIC, encode_event(event), self.stand.clock.now_ms())

    # Fine-tunes

    async def host(self, tenant: Tenant, key: ApiKeyId, adapter: int, *, pinned: bool) -> None:
        """An hour begins in which a fine-tune is live, or it is told again that it did."""
        now_ms = self.stand.clock.now_ms()
        event: AdapterHosted | StorageHeld = AdapterHosted(
            organization=tenant.organization,
            project=tenant.project,
            key=key,
            adapter=AdapterId(f"adapter{adapter}_of_{tenant.organization}"),
            model=f"ft:{MODEL}:{tenant.organization}",
            base_model=MODEL,
            admitted_at_ms=now_ms // HOUR_MS * HOUR_MS,
            pinned=pinned,
        )
        event = self.told.unasked.setdefault(event.charge_key, event)
        async with self.stand.database.transaction() as session:
            await write_message(session, USAGE_TOPIC, encode_event(event), now_ms)

    async def keep(self, tenant: Tenant, number: int) -> None:
        """A gigabyte was kept for one more month, or it is told again that it was."""
        now_ms = self.stand.clock.now_ms()
        event: AdapterHosted | StorageHeld = StorageHeld(tenant.organization, number, now_ms // HOUR_MS * HOUR_MS)
        event = self.told.unasked.setdefault(event.charge_key, event)
        async with self.stand.database.transaction() as session:
            await write_message(session, USAGE_TOPIC, encode_event(event), now_ms)

    # Loops

    async def gateway_round(self, gateway: GatewayProcess, *, plan: Plan | None = None) -> None:
        charged = await self.stand.charged()
        for one in self.told.open():
            if one.gateway is gateway and one.doubtful and one.id in charged:
                one.revived = True
        await self._run(gateway, gateway.round, _nothing, plan)

    async def replica_round(self, *, plan: Plan | None = None) -> None:
        replica = self.stand.replica
        await self._run(replica, replica.outbox.check, _nothing, plan)

    async def sweep(self, worker: WorkerProcess, *, of_the_living: bool = False, plan: Plan | None = None) -> None:
        await self.stand.leases_end(of_the_living=of_the_living)
        await self._run(worker, worker.sweeper.sweep, _nothing, plan, *((RedisError,) if plan else ()))

    async def consume(self, worker: WorkerProcess, *, overdue: bool = False, plan: Plan | None = None) -> None:
        if overdue:
            await self.stand.reports_are_overdue()
        await self._run(worker, worker.consume, _nothing, plan, LeaseLost, *((RedisError,) if plan else ()))

    async def close(self, worker: WorkerProcess, *, plan: Plan | None = None) -> None:
        """The month is over for whoever has nothing undecided."""
        self.stand.clock.advance(61)  # what could not be closed is tried again
        await self._run(worker, worker.close, _nothing, plan, LeaseLost, *((RedisError,) if plan else ()))

    async def settle_invoice(self, worker: WorkerProcess, choice: int, way: str, *, plan: Plan | None = None) -> None:
        """An open invoice, if there is one, is paid or becomes void."""
        async with self.stand.database.reading() as session:
            query = select(Invoice.id).where(Invoice.state == "open").order_by(Invoice.id)
            found = (await session.scalars(query)).all()
        if not found:
            return
        invoice, by = found[choice % len(found)], ApiKeyId("key_operator")

        async def settle() -> None:
            if way == "void":
                await worker.settlements.void(invoice, reason="a mistake", actor=by)
            else:
                await worker.settlements.pay(invoice, reference="bank", idempotency_key=invoice, actor=by)

        await self._run(worker, settle, _nothing, plan, Conflict)

    async def correct(
        self, tenant: Tenant, worker: WorkerProcess, card: str | None, *, plan: Plan | None = None
    ) -> None:
        """All that a tenant used so far is taken back, or rated anew by a card."""
        once = f"correction {self._number()}"

        async def correct() -> None:
            await worker.corrections.request(
                tenant.organization,
                Scope(since_ms=0),
                card,
                reason="wrong",
                actor=ApiKeyId("key_operator"),
                idempotency_key=once,
            )
            await worker.billing.corrections.step()

        await self._run(worker, correct, _nothing, plan, InvalidRequest)

    async def carry(self, worker: WorkerProcess, *, plan: Plan | None = None) -> None:
        self.stand.clock.advance(1)
        await self._run(worker, worker.outbox.step, _nothing, plan, *((RedisError,) if plan else ()))

    async def tidy(self, worker: WorkerProcess, *, plan: Plan | None = None) -> None:
        self.stand.clock.advance(61)
        self.stand.keep()
        await self._run(worker, worker.reservations.tidy, _nothing, plan)

    # Redis

    async def deliver_again(self, choice: int) -> None:
        """Let an event stand on its stream once more."""
        for bucket in sorted(self.stand.buckets):
            entries: Any = await self.stand.redis.xrange(usage_stream(bucket))
            for identity, fields in entries:
                self._seen[bucket, identity] = fields
        if self._seen:
            bucket, _ = where = sorted(self._seen)[choice % len(self._seen)]
            await self.stand.redis.xadd(usage_stream(bucket), self._seen[where])

    async def redis_dies(self) -> None:
        """It comes back without its last moments; within moments everybody who lives notices."""
        self._seen.clear()
        for process in self.stand.processes:
            if process.stalled:
                await self.resume(process)
        await self.stand.redis_dies()
        for gateway in self.stand.gateways:
            await self.gateway_round(gateway)
        await self.replica_round()
        for worker in self.stand.workers:
            await self.carry(worker)
        self.stand.keep()

    # Time

    async def resume(self, process: MoneyProcess, plan: Plan | None = None) -> None:
        """Let go on what stalls."""
        await process.resume(plan)
        await self.stand.bury()

    async def end_well(self) -> None:
        """Whatever stalls goes on, and every gateway that lives settles what it has let in."""
        for process in self.stand.processes:
            if process.stalled:
                await self.resume(process)
        for one in list(self.told.open()):
            await self.report(one, one.attempts)
            await self.settle(one, Outcome.COMPLETED, one.used)

    async def recover(self) -> None:
        """Gateways, replicas and what stalls die, and new ones come; time passes until all is decided."""
        stand = self.stand
        for process in (*stand.gateways, stand.replica, *(worker for worker in stand.workers if worker.stalled)):
            await process.kill()
        await stand.bury()
        for gateway in stand.gateways:
            await self.gateway_round(gateway)
        await self.replica_round()
        for job in list(self.told.unfinished_jobs()):
            await self.finish(job, 0)
        for _ in range(ROUNDS):
            await self.tidy(stand.workers[0])
            await self.sweep(stand.workers[0])
            await self.carry(stand.workers[0])
            for worker in stand.workers:
                await self.consume(worker, overdue=True)
            unfinished = await stand.unfinished()
            if not unfinished:
                return
            # What another worker has read is taken over after a while, which is no time of the stand's clock.
            await asyncio.sleep(2 * RETRY_MS / 1000 / ROUNDS)
        raise AssertionError(f"it does not come to rest: {unfinished}")

    async def _run(
        self,
        process: MoneyProcess,
        work: Callable[[], Coroutine[Any, Any, Any]],
        then: Then,
        plan: Plan | None,
        *expected: type[Exception],
    ) -> None:
        def ended(ending: Ending) -> None:
            if ending.error is not None and not isinstance(ending.error, expected):
                raise ending.error
            then(ending)

        await process.run(work, ended, plan)
        await self.stand.bury()

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def _nothing(_ending: Ending) -> None:
    """Nobody was told anything."""


def _with(claims: MeterClaims, attempt: AttemptId) -> MeterClaims:
    return msgspec.structs.replace(claims, attempt=attempt)


def request_of(principal: Principal, name: str, amount: int, tokens: int) -> AdmissionRequest:
    """Return a request of `principal` that may cost `amount` and use `tokens`."""
    claims = MeterClaims(
        attempt=AttemptId(f"{name}.1"),
        organization=principal.organization,
        project=principal.project,
        key=principal.key,
        model=MODEL,
        base_model=MODEL,
        price=PRICE,
        admitted_at_ms=0,
        endpoint="/v1/chat/completions",
    )
    budgets = budgets_of(principal.organization, principal.monthly_limits, SystemClock().now_ms())
    return AdmissionRequest(principal, claims, tokens, NanoDollars(amount), budgets)
