"""The whole way of money, with real parts, against plain figures: whatever dies, stalls or comes twice."""

import asyncio
import os
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

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
from support.money.model import LetIn, Tenant, Told
from support.money.processes import MoneyProcess
from support.money.seals import check_sealed
from support.money.stand import STRANGERS, MoneyStand, neighbours
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.core.money import Millionths
from tokenyard.core.usage import TokenUsage
from tokenyard.limits import live_budgets, scripts
from tokenyard.metering.events import Outcome
from tokenyard.storage import transactional_outbox
from tokenyard.storage.database import Database
from tokenyard_billing.taxes.amounts import LineTax
from tokenyard_billing.taxes.terms import TaxProfile

T = TypeVar("T")

RUNS = int(os.environ.get("MONEY_MACHINE_RUNS", "10"))
STEPS = int(os.environ.get("MONEY_MACHINE_STEPS", "30"))

FAULTS = st.builds(Plan, st.integers(1, 6) | st.integers(1, 60), st.sampled_from(Fault), st.just(False))
PLANS = st.none() | FAULTS
PAIR = st.integers(0, 1)
ANY = st.integers(0, 1_000)
CREDITS = st.sampled_from([100_000, 40_000, 20_000, 1])
FEES = st.sampled_from([0, 30_001, 70_000])
LIMITS = st.sampled_from([60_000, 200_000, 20_000, 0])
MOST = st.sampled_from([TokenUsage(20, 10), TokenUsage(50, 50, 10), TokenUsage(0, 1), TokenUsage(0, 0)])
JOBS = st.lists(st.sampled_from([5, 10, 20, 0]), min_size=1, max_size=3)
ATTEMPTS = st.sampled_from([1, 1, 2])
OUTCOMES = st.sampled_from(Outcome)
PROFILES = st.sampled_from([TaxProfile("US-CA"), TaxProfile("US"), TaxProfile("US", "exempt", "a school")])
TAXES = st.builds(LineTax, st.just("Tax"), st.sampled_from([72_500, 190_000, 333_333]).map(Millionths), st.booleans())


class MoneyMachine(RuleBasedStateMachine):
    valkey: Valkey
    folder: Path
    database_url: str
    runs = 0

    @initialize(of_one_bucket=st.booleans(), given=st.tuples(CREDITS, CREDITS), begun=st.integers(0, 4))
    def open(self, of_one_bucket: bool, given: tuple[int, int], begun: int) -> None:
        self.loop = asyncio.Runner()
        MoneyMachine.runs += 1
        folder = self.folder / f"run-{MoneyMachine.runs}"
        self._do(self._open(folder, of_one_bucket, given))
        for number in range(begun):
            self.admit(tenant=number % 2, key=0, gateway=number // 2, most=TokenUsage(10, 20), unused=11)

    async def _open(self, folder: Path, of_one_bucket: bool, given: tuple[int, int]) -> None:
        self.stand = MoneyStand(self.valkey, folder, self.database_url)
        await self.stand.__aenter__()
        await self.stand.welcome(*(neighbours(0) if of_one_bucket else STRANGERS), monthly_spend=100_000)
        self.actions = MoneyActions(self.stand)
        self.books = MoneyBooks(self.actions)
        worker = self.stand.workers[0]
        await self.actions.publish_tax("US", LineTax("Tax", Millionths(190_000)), worker)
        for tenant, amount in zip(self.stand.told.tenants, given, strict=True):
            await self.actions.grant(tenant, amount, self.stand.gateways[0])
            await self.actions.tax(tenant, TaxProfile("US"), worker)

    @rule()
    def end_well(self) -> None:
        self._do(self.actions.end_well())

    def teardown(self) -> None:
        if not hasattr(self, "stand"):
            return
        try:
            if not self.failed:
                self._do(self.actions.recover())
                self._do(self.books.check_at_rest())
                self._do(self.books.check_rebuilt())
                self._do(check_sealed(self.stand))
        finally:
            self.loop.run(self.stand.__aexit__())
            self.loop.close()

    @invariant()
    def no_hole(self) -> None:
        if hasattr(self, "books"):
            self._do(self.books.check_now())

    # Tenants and operators

    @rule(tenant=PAIR, amount=CREDITS, gateway=PAIR, plan=PLANS)
    def grant(self, tenant: int, amount: int, gateway: int, plan: Plan | None) -> None:
        self._do(self.actions.grant(self._tenant(tenant), amount, self.stand.gateways[gateway], plan=plan))

    @rule(tenant=PAIR, which=ANY, gateway=PAIR, plan=PLANS)
    def grant_again(self, tenant: int, which: int, gateway: int, plan: Plan | None) -> None:
        again = _pick(list(self._tenant(tenant).asked), which)
        self._do(self.actions.grant(self._tenant(tenant), 0, self.stand.gateways[gateway], again=again, plan=plan))

    @rule(tenant=PAIR, scope=st.integers(0, 3), limit=LIMITS, without=st.booleans(), gateway=PAIR, plan=PLANS)
    def limit(self, *, tenant: int, scope: int, limit: int, without: bool, gateway: int, plan: Plan | None) -> None:
        changed = self._tenant(tenant)
        name = changed.scopes[scope]
        new = None if without and name == changed.project else limit
        self._do(self.actions.limit(changed, name, new, self.stand.gateways[gateway], plan=plan))

    @rule(tenant=PAIR, fee=FEES, minimum=FEES)
    def subscribe(self, tenant: int, fee: int, minimum: int) -> None:
        self._do(self.books.subscriptions.subscribe(self._tenant(tenant), fee, minimum))

    # Requests

    @rule(
        tenant=PAIR,
        key=PAIR,
        gateway=PAIR,
        most=MOST,
        unused=st.integers(0, 20),
        attempts=ATTEMPTS,
        fresh=st.booleans(),
        plan=PLANS,
    )
    def admit(
        self,
        *,
        tenant: int,
        key: int,
        gateway: int,
        most: TokenUsage,
        unused: int,
        attempts: int = 1,
        fresh: bool = True,
        plan: Plan | None = None,
    ) -> None:
        used = TokenUsage(most.prompt_tokens, max(0, most.completion_tokens - unused), most.cached_tokens)
        caller, process = self._tenant(tenant).keys[key], self.stand.gateways[gateway]
        admission = self.actions.admit(caller, process, most=most, used=used, attempts=attempts, fresh=fresh, plan=plan)
        self._do(admission)

    @precondition(lambda self: any(self.told.open()))
    @rule(which=ANY, outcome=OUTCOMES, plan=PLANS)
    def settle(self, which: int, outcome: Outcome, plan: Plan | None) -> None:
        self._settle(_pick(list(self.told.open()), which), outcome, plan)

    @precondition(lambda self: self.told.requests)
    @rule(which=ANY, attempt=PAIR, plan=PLANS)
    def report(self, which: int, attempt: int, plan: Plan | None) -> None:
        one = _pick(list(self.told.requests.values()), which)
        self._do(self.actions.report(one, 1 + attempt % one.attempts, plan=plan))

    @precondition(lambda self: any(self.told.open()))
    @rule(which=ANY, outcome=OUTCOMES, report_first=st.booleans(), settle_plan=PLANS, report_plan=PLANS)
    def report_and_settle(
        self, which: int, outcome: Outcome, report_first: bool, settle_plan: Plan | None, report_plan: Plan | None
    ) -> None:
        one = _pick(list(self.told.open()), which)
        if report_first:
            self._do(self.actions.report(one, one.attempts, plan=report_plan))
        self._settle(one, outcome, settle_plan)
        if not report_first:
            self._do(self.actions.report(one, one.attempts, plan=report_plan))

    def _settle(self, one: LetIn, outcome: Outcome, plan: Plan | None) -> None:
        relayed = one.used
        if outcome is not Outcome.COMPLETED:
            relayed = TokenUsage(relayed.prompt_tokens, relayed.completion_tokens // 2, relayed.cached_tokens)
        self._do(self.actions.settle(one, outcome, relayed, plan=plan))

    # Jobs

    @rule(tenant=PAIR, key=PAIR, gateway=PAIR, tokens=JOBS, plan=PLANS)
    def reserve(self, tenant: int, key: int, gateway: int, tokens: list[int], plan: Plan | None) -> None:
        owner = self._tenant(tenant)
        self._do(self.actions.reserve(owner, owner.keys[key], self.stand.gateways[gateway], *tokens, plan=plan))

    @precondition(lambda self: any(self.told.unfinished_jobs()))
    @rule(which=ANY, share=st.sampled_from([1, 2, 3, 0]))
    def finish(self, which: int, share: int) -> None:
        job = _pick(list(self.told.unfinished_jobs()), which)
        self._do(self.actions.finish(job, job.tokens * share // 3 if job.reserved else 0))

    # Fine-tunes

    @rule(tenant=PAIR, key=PAIR, adapter=st.integers(0, 2), pinned=st.booleans())
    def host(self, tenant: int, key: int, adapter: int, pinned: bool) -> None:
        owner = self._tenant(tenant)
        self._do(self.actions.host(owner, owner.keys[key], adapter, pinned=pinned))

    @rule(tenant=PAIR, number=st.integers(1, 3))
    def keep(self, tenant: int, number: int) -> None:
        self._do(self.actions.keep(self._tenant(tenant), number))

    # Loops

    @rule(gateway=PAIR, plan=PLANS)
    def gateway_round(self, gateway: int, plan: Plan | None) -> None:
        self._do(self.actions.gateway_round(self.stand.gateways[gateway], plan=plan))

    @rule(plan=PLANS)
    def replica_round(self, plan: Plan | None) -> None:
        self._do(self.actions.replica_round(plan=plan))

    @rule(worker=PAIR, overdue=st.booleans(), plan=PLANS)
    def consume(self, worker: int, overdue: bool, plan: Plan | None) -> None:
        self._do(self.actions.consume(self.stand.workers[worker], overdue=overdue, plan=plan))

    @rule(worker=PAIR, of_the_living=st.sampled_from([False, False, True]), plan=PLANS)
    def sweep(self, worker: int, of_the_living: bool, plan: Plan | None) -> None:
        self._do(self.actions.sweep(self.stand.workers[worker], of_the_living=of_the_living, plan=plan))

    @rule(worker=PAIR, plan=PLANS)
    def close(self, worker: int, plan: Plan | None) -> None:
        self._do(self.actions.close(self.stand.workers[worker], plan=plan))

    @rule(worker=PAIR, which=ANY, way=st.sampled_from(["pay", "void"]), plan=PLANS)
    def settle_invoice(self, worker: int, which: int, way: str, plan: Plan | None) -> None:
        self._do(self.actions.settle_invoice(self.stand.workers[worker], which, way, plan=plan))

    @rule(tenant=PAIR, worker=PAIR, card=st.sampled_from([None, "cheap"]), plan=PLANS)
    def correct(self, tenant: int, worker: int, card: str | None, plan: Plan | None) -> None:
        self._do(self.actions.correct(self._tenant(tenant), self.stand.workers[worker], card, plan=plan))

    @rule(tenant=PAIR, profile=PROFILES, worker=PAIR, plan=PLANS)
    def tax(self, tenant: int, profile: TaxProfile, worker: int, plan: Plan | None) -> None:
        self._do(self.actions.tax(self._tenant(tenant), profile, self.stand.workers[worker], plan=plan))

    @rule(jurisdiction=st.sampled_from(["US", "US-CA"]), how=TAXES, worker=PAIR, plan=PLANS)
    def publish_tax(self, jurisdiction: str, how: LineTax, worker: int, plan: Plan | None) -> None:
        self._do(self.actions.publish_tax(jurisdiction, how, self.stand.workers[worker], plan=plan))

    @rule(worker=PAIR, tidy=st.booleans(), plan=PLANS)
    def carry_or_tidy(self, worker: int, tidy: bool, plan: Plan | None) -> None:
        work = self.actions.tidy if tidy else self.actions.carry
        self._do(work(self.stand.workers[worker], plan=plan))

    # Accidents

    @rule(process=st.integers(0, 4))
    def kill(self, process: int) -> None:
        self._do(self.stand.kill(self.stand.processes[process]))

    @precondition(lambda self: self._stalled())
    @rule(which=ANY, plan=PLANS)
    def resume(self, which: int, plan: Plan | None) -> None:
        self._do(self.actions.resume(_pick(self._stalled(), which), plan))

    @precondition(lambda self: any(worker.stalled for worker in self.stand.workers))
    @rule()
    def lease_of_a_stalled_worker_ends(self) -> None:
        for worker in self.stand.workers:
            if worker.stalled:
                self._do(self.stand.worker_lease_ends(worker))

    @rule(which=ANY, redis_dies=st.sampled_from([False, False, True]))
    def events_come_twice(self, which: int, redis_dies: bool) -> None:
        self._do(self.actions.redis_dies() if redis_dies else self.actions.deliver_again(which))

    @property
    def told(self) -> Told:
        return self.stand.told

    def _tenant(self, number: int) -> Tenant:
        return self.told.tenants[number]

    def _stalled(self) -> list[MoneyProcess]:
        return [process for process in self.stand.processes if process.stalled]

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self.failed = True
        self.loop.run(work)
        self.failed = False


def _pick(found: Sequence[T], which: int) -> T:
    return found[which % len(found)]


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
