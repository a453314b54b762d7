"""The whole way of money, with real parts, against plain figures: whatever dies, stalls or comes twice."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.money.actions import MoneyActions
from support.money.books import MoneyBooks
from support.money.faults import Fault, Plan
from support.money.model import Tenant
from support.money.stand import STRANGERS, MoneyStand, neighbours
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.core.usage import TokenUsage
from tokenyard.limits import live_budgets, scripts
from tokenyard.metering.events import Outcome
from tokenyard.storage import transactional_outbox
from tokenyard.storage.database import Database

RUNS = int(os.environ.get("MONEY_MACHINE_RUNS", "15"))
STEPS = int(os.environ.get("MONEY_MACHINE_STEPS", "30"))

PLANS = st.none() | st.builds(Plan, st.integers(1, 6) | st.integers(1, 60), st.sampled_from(Fault), st.just(False))
PAIR = st.integers(0, 1)
ANY = st.integers(0, 1_000)
USAGES = st.builds(
    lambda fresh, cached, completion: TokenUsage(fresh + cached, completion, cached),
    st.integers(0, 40),
    st.integers(0, 10),
    st.integers(0, 50),
)
LIMITS = st.sampled_from([0, 10_000, 30_000, 60_000, 200_000])


class MoneyMachine(RuleBasedStateMachine):
    valkey: Valkey
    folder: Path
    database_url: str
    runs = 0

    @initialize(of_one_bucket=st.booleans(), credit=st.tuples(st.integers(1, 100_000), st.integers(1, 100_000)))
    def open(self, of_one_bucket: bool, credit: tuple[int, int]) -> None:
        self.loop = asyncio.Runner()
        MoneyMachine.runs += 1
        folder = self.folder / f"run-{MoneyMachine.runs}"
        self._do(self._open(folder, of_one_bucket, credit))

    async def _open(self, folder: Path, of_one_bucket: bool, credit: tuple[int, int]) -> None:
        self.stand = MoneyStand(self.valkey, folder, self.database_url)
        await self.stand.__aenter__()
        await self.stand.welcome(*(neighbours(0) if of_one_bucket else STRANGERS), monthly_spend=100_000)
        self.actions = MoneyActions(self.stand)
        self.books = MoneyBooks(self.actions)
        for tenant, amount in zip(self.stand.told.tenants, credit, strict=True):
            await self.actions.grant(tenant, amount, self.stand.gateways[0])

    def teardown(self) -> None:
        if not hasattr(self, "stand"):
            return
        try:
            if not self.failed:
                self._do(self.actions.recover())
                self._do(self.books.check_at_rest())
                self._do(self.books.check_rebuilt())
        finally:
            self.loop.run(self.stand.__aexit__())
            self.loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self.failed = True
        self.loop.run(work)
        self.failed = False

    def _tenant(self, number: int) -> Tenant:
        return self.stand.told.tenants[number]

    # Tenants and operators

    @rule(tenant=PAIR, amount=st.integers(1, 100_000), gateway=PAIR, plan=PLANS)
    def grant(self, tenant: int, amount: int, gateway: int, plan: Plan | None) -> None:
        self._do(self.actions.grant(self._tenant(tenant), amount, self.stand.gateways[gateway], plan=plan))

    @rule(tenant=PAIR, which=ANY, gateway=PAIR, plan=PLANS)
    def grant_again(self, tenant: int, which: int, gateway: int, plan: Plan | None) -> None:
        asked = self._tenant(tenant)
        keys = list(asked.asked)
        again = keys[which % len(keys)]
        self._do(self.actions.grant(asked, 0, self.stand.gateways[gateway], again=again, plan=plan))

    @rule(tenant=PAIR, scope=st.integers(0, 3), limit=LIMITS, without=st.booleans(), gateway=PAIR, plan=PLANS)
    def limit(self, tenant: int, scope: int, limit: int, without: bool, gateway: int, plan: Plan | None) -> None:
        changed = self._tenant(tenant)
        name = changed.scopes[scope]
        new = None if without and name == changed.project else limit
        self._do(self.actions.limit(changed, name, new, self.stand.gateways[gateway], plan=plan))

    # Requests

    @rule(
        tenant=PAIR,
        key=PAIR,
        gateway=PAIR,
        most=USAGES,
        spare=st.integers(0, 20),
        attempts=st.sampled_from([1, 1, 1, 2]),
        fresh=st.booleans(),
        plan=PLANS,
    )
    def admit(
        self,
        tenant: int,
        key: int,
        gateway: int,
        most: TokenUsage,
        spare: int,
        attempts: int,
        fresh: bool,
        plan: Plan | None,
    ) -> None:
        used = TokenUsage(most.prompt_tokens, max(0, most.completion_tokens - spare), most.cached_tokens)
        self._do(
            self.actions.admit(
                self._tenant(tenant).keys[key],
                self.stand.gateways[gateway],
                most=most,
                used=used,
                attempts=attempts,
                fresh=fresh,
                plan=plan,
            )
        )

    @precondition(lambda self: any(self.stand.told.open()))
    @rule(which=ANY, outcome=st.sampled_from(Outcome), plan=PLANS)
    def settle(self, which: int, outcome: Outcome, plan: Plan | None) -> None:
        waiting = list(self.stand.told.open())
        one = waiting[which % len(waiting)]
        relayed = one.used
        if outcome is not Outcome.COMPLETED:
            relayed = TokenUsage(relayed.prompt_tokens, relayed.completion_tokens // 2, relayed.cached_tokens)
        self._do(self.actions.settle(one, outcome, relayed, plan=plan))

    @precondition(lambda self: self.stand.told.requests)
    @rule(which=ANY, attempt=PAIR, finished=st.booleans(), plan=PLANS)
    def report(self, which: int, attempt: int, finished: bool, plan: Plan | None) -> None:
        every = list(self.stand.told.requests.values())
        one = every[which % len(every)]
        self._do(self.actions.report(one, 1 + attempt % one.attempts, finished=finished, plan=plan))

    # Jobs

    @rule(tenant=PAIR, key=PAIR, gateway=PAIR, tokens=st.integers(0, 20), plan=PLANS)
    def reserve(self, tenant: int, key: int, gateway: int, tokens: int, plan: Plan | None) -> None:
        owner = self._tenant(tenant)
        self._do(self.actions.reserve(owner, owner.keys[key], self.stand.gateways[gateway], tokens, plan=plan))

    @precondition(lambda self: any(job.trained is None for job in self.stand.told.jobs.values()))
    @rule(which=ANY, share=st.floats(0, 1))
    def finish(self, which: int, share: float) -> None:
        jobs = [job for job in self.stand.told.jobs.values() if job.trained is None and job.reserved is not False]
        if jobs:
            job = jobs[which % len(jobs)]
            self._do(self.actions.finish(job, int(job.tokens * share) if job.reserved else 0))

    # Loops

    @rule(gateway=PAIR, plan=PLANS)
    def gateway_round(self, gateway: int, plan: Plan | None) -> None:
        self._do(self.actions.gateway_round(self.stand.gateways[gateway], plan=plan))

    @rule(plan=PLANS)
    def replica_round(self, plan: Plan | None) -> None:
        self._do(self.actions.replica_round(plan=plan))

    @rule(worker=PAIR, of_the_living=st.sampled_from([False, False, False, True]), plan=PLANS)
    def sweep(self, worker: int, of_the_living: bool, plan: Plan | None) -> None:
        self._do(self.actions.sweep(self.stand.workers[worker], of_the_living=of_the_living, plan=plan))

    @rule(worker=PAIR, overdue=st.booleans(), plan=PLANS)
    def consume(self, worker: int, overdue: bool, plan: Plan | None) -> None:
        self._do(self.actions.consume(self.stand.workers[worker], overdue=overdue, plan=plan))

    @rule(worker=PAIR, plan=PLANS)
    def carry(self, worker: int, plan: Plan | None) -> None:
        self._do(self.actions.carry(self.stand.workers[worker], plan=plan))

    @rule(worker=PAIR, plan=PLANS)
    def tidy(self, worker: int, plan: Plan | None) -> None:
        self._do(self.actions.tidy(self.stand.workers[worker], plan=plan))

    # Accidents

    @rule(process=st.integers(0, 4))
    def kill(self, process: int) -> None:
        self._do(self.stand.kill(self.stand.processes[process]))

    @precondition(lambda self: any(process.stalled for process in self.stand.processes))
    @rule(which=ANY, plan=PLANS)
    def resume(self, which: int, plan: Plan | None) -> None:
        stalled = [process for process in self.stand.processes if process.stalled]
        self._do(self.actions.resume(stalled[which % len(stalled)], plan))

    @precondition(lambda self: any(worker.stalled for worker in self.stand.workers))
    @rule()
    def lease_of_a_stalled_worker_ends(self) -> None:
        for worker in self.stand.workers:
            if worker.stalled:
                self._do(self.stand.worker_lease_ends(worker))

    @rule(which=ANY)
    def deliver_again(self, which: int) -> None:
        self._do(self.actions.deliver_again(which))

    @rule()
    def redis_dies(self) -> None:
        self._do(self.actions.redis_dies())

    @invariant()
    def no_hole(self) -> None:
        if hasattr(self, "books"):
            self._do(self.books.check_now())


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of its own, because it dies."""
    folder = tmp_path / "valkey"
    folder.mkdir()
    server = Valkey(folder, free_port())
    server.start()
    yield server
    server.stop()


def test_no_order_of_events_and_deaths_opens_a_hole(
    database: Database, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "TRIP_TIMEOUT_S", 600)  # a process that stalls is not in a hurry
    monkeypatch.setattr(live_budgets, "LOAD_TIMEOUT_S", 600)
    monkeypatch.setattr(transactional_outbox, "CARRY_LIMIT_S", 600)
    MoneyMachine.valkey = valkey
    MoneyMachine.folder = tmp_path
    MoneyMachine.database_url = database.engine.url.render_as_string(hide_password=False)
    run_state_machine_as_test(
        MoneyMachine,
        settings=hypothesis_settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=set(Phase) - {Phase.explain},
        ),
    )
