"""Processes that let in by themselves while Redis is away: no window is over its share, no budget over the bound."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError

from support.fakes.admission_requests import admission_request, principal, settled
from support.fakes.clock import FrozenClock
from tokenyard.core.admission import AdmissionRequest, Admitted, RateHeaders
from tokenyard.core.errors import QuotaExceeded, TokenyardError
from tokenyard.core.ids import RequestId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits, LocalShare
from tokenyard.limits.holds import Hold, key_of
from tokenyard.limits.local_share import LocalGrants
from tokenyard.limits.outage_admission import OutageAdmission
from tokenyard.limits.refusals import not_available
from tokenyard.metering.events import Outcome, Settled

MINUTE_S, DAY_S = 60.0, 86_400.0
LIMITS = Limits(requests_per_minute=13, tokens_per_minute=150, requests_per_day=40, tokens_per_day=900, concurrency=7)
STEPS = st.tuples(
    st.sampled_from([0.0, 1.0, 5.0, 56.0, 59.9, 65.0, 7_200.0, 80_000.0, 86_399.0]) | st.floats(0, 90_000),
    st.integers(0, 12) | st.integers(0, 60),  # tokens
    st.floats(0, 1),  # how many of them are used
    st.integers(0, 3),  # how many requests end before it
)


@given(percent=st.sampled_from([8, 16]) | st.integers(1, 100), steps=st.lists(STEPS, max_size=60))
@settings(deadline=None, max_examples=200)
def test_no_real_window_ever_holds_more_than_the_share(
    percent: int, steps: list[tuple[float, int, float, int]]
) -> None:
    share = LocalShare(percent, NanoDollars(10**9))
    clock = FrozenClock()
    grants = LocalGrants(clock)
    entries: list[list[float]] = []  # second, tokens that it counts for
    running: list[tuple[RequestId, int, float, list[float]]] = []
    for seconds, tokens, used, ending in steps:
        clock.advance(seconds)
        for request, held, part, entry in running[:ending]:
            entry[1] = int(held * part)
            grants.end(request, tokens=int(entry[1]), cost=0)
        del running[:ending]
        asked = admission_request(principal(project=LIMITS), tokens=tokens, amount=0)
        if grants.grant(asked, share):
            entry = [clock(), tokens]
            entries.append(entry)
            running.append((key_of(asked.claims), tokens, used, entry))
        assert len(running) <= LIMITS.concurrency * percent // 100  # type: ignore[operator]
    for length, requests, most_tokens in ((MINUTE_S, 13, 150), (DAY_S, 40, 900)):
        for begin, _ in entries:
            inside = [tokens for at, tokens in entries if begin <= at < begin + length]
            assert len(inside) <= requests * percent // 100
            assert sum(inside) <= most_tokens * percent // 100


SHARE = 100
AMOUNTS = st.sampled_from([0, SHARE])
PLACES = st.integers(0, 5)


@dataclass
class Call:
    """One admission on its way to Redis and back. `refused` is known once the script ran."""

    request: AdmissionRequest
    reply: "asyncio.Future[Admitted]"
    ran: bool = False
    refused: bool = False


@dataclass
class World:
    """One wallet. `known` is what Redis has of it, by request; `taken` what requests that were let in may cost."""

    balance: int = 0
    known: dict[RequestId, int] = field(default_factory=dict)
    taken: dict[RequestId, int] = field(default_factory=dict)


class SlowRedis:
    """What one process has between itself and a wallet in Redis, each step in the test's hands."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: list[Call] = []
        self.spool: list[tuple[RequestId, int]] = []
        self.holds: dict[RequestId, int] = {}
        self.away = False

    @property
    def delivered(self) -> bool:
        return not self.spool

    async def admit(self, request: AdmissionRequest) -> Admitted:
        call = Call(request, asyncio.get_running_loop().create_future())
        self.calls.append(call)
        return await call.reply

    def settle(self, settled: Settled, cost: NanoDollars) -> "asyncio.Future[None]":
        request = key_of(settled.claims)
        amount = self.world.taken[request] if settled.outcome is Outcome.CLIENT_LEFT else int(cost)
        self.holds.pop(request, None)
        if self.away:
            self.spool.append((request, amount))
        else:
            self.world.known[request] = amount
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def keep(self, hold: Hold) -> None:
        self.holds[RequestId(hold.key)] = hold.amount

    def run(self, call: Call) -> None:
        """Let the script run."""
        call.ran = True
        amount, available = call.request.amount, self.world.balance - sum(self.world.known.values())
        call.refused = amount > available
        if not call.refused:
            self.world.known[key_of(call.request.claims)] = amount

    def renew(self) -> None:
        self.world.known.update(self.holds)

    def replay(self) -> None:
        while self.spool:
            request, amount = self.spool.pop(0)
            self.world.known[request] = amount


class Process:
    def __init__(self, world: World, share: LocalShare) -> None:
        self.redis = SlowRedis(world)
        self.admission = OutageAdmission(self.redis, FrozenClock(), CollectorRegistry())
        self._caller = principal(local_share=share)
        self.asking: list[tuple[Call, asyncio.Task[Admitted]]] = []
        self.running: list[Admitted] = []

    def request(self, amount: int) -> AdmissionRequest:
        return admission_request(self._caller, amount=amount)


class Outages(RuleBasedStateMachine):
    """Every process may lose Redis at any time, in the middle of a call, and find it again."""

    number = 1

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.processes = [Process(self.world, LocalShare(100, NanoDollars(SHARE))) for _ in range(self.number)]

    @property
    def left(self) -> int:
        return self.world.balance - sum(self.world.taken.values())

    def teardown(self) -> None:
        for process in self.processes:
            for _, task in process.asking:
                task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def do(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.loop.run_until_complete(work())

    @rule(at=PLACES, amount=AMOUNTS)
    def ask(self, at: int, amount: int) -> None:
        process = self._process(at)
        request = process.request(amount)

        async def begin() -> None:
            task = asyncio.ensure_future(process.admission.admit(request))
            await asyncio.sleep(0)
            process.asking.append((process.redis.calls[-1], task))

        self.do(begin)

    @rule(at=PLACES, amount=AMOUNTS)
    def ask_and_be_answered(self, at: int, amount: int) -> None:
        self.ask(at, amount)
        call, task = self._process(at).asking.pop()
        if not self._process(at).redis.away:
            self._process(at).redis.run(call)
        self.do(lambda: self._answer(self._process(at), call, task, lost=self._process(at).redis.away))

    @rule(at=PLACES, place=PLACES)
    def script_runs(self, at: int, place: int) -> None:
        process = self._process(at)
        waiting = [call for call, _ in process.asking if not call.ran]
        if waiting and not process.redis.away:
            process.redis.run(waiting[place % len(waiting)])

    @rule(at=PLACES, place=PLACES, lost=st.booleans())
    def reply_comes(self, at: int, place: int, *, lost: bool) -> None:
        """The answer arrives, or the connection is lost instead of it."""
        process = self._process(at)
        able = [(call, task) for call, task in process.asking if call.ran or process.redis.away]
        if able:
            call, task = able[place % len(able)]
            process.asking.remove((call, task))
            self.do(lambda: self._answer(process, call, task, lost=lost or process.redis.away))

    async def _answer(self, process: Process, call: Call, task: "asyncio.Task[Admitted]", *, lost: bool) -> None:
        if lost:
            away = not_available()
            away.__cause__ = RedisConnectionError("gone")
            call.reply.set_exception(away)
        elif call.refused:
            call.reply.set_exception(QuotaExceeded("spent"))
        else:
            call.reply.set_result(Admitted(call.request.claims, RateHeaders()))
        request = key_of(call.request.claims)
        try:
            admitted = await task
        except TokenyardError:
            if lost and not call.refused:
                self.world.known.pop(request, None)  # what nobody waits for is given back
            return
        self.world.taken[request] = call.request.amount
        process.running.append(admitted)

    @precondition(lambda self: any(process.running for process in self.processes))
    @rule(place=PLACES, spent=st.sampled_from([0.3, 1.0]), left=st.booleans())
    def end(self, place: int, spent: float, *, left: bool) -> None:
        running = [(process, admitted) for process in self.processes for admitted in process.running]
        process, admitted = running[place % len(running)]
        process.running.remove(admitted)
        request = key_of(admitted.claims)
        outcome = Outcome.CLIENT_LEFT if left else Outcome.COMPLETED
        cost = int(self.world.taken[request] * spent)
        event = settled(admitted.claims, outcome=outcome)

        async def settle() -> None:
            await process.admission.settle(event, NanoDollars(cost))

        self.do(settle)
        if not left:
            self.world.taken[request] = cost

    @rule(at=PLACES)
    def redis_goes_or_comes(self, at: int) -> None:
        redis = self._process(at).redis
        redis.away = not redis.away

    @rule(at=PLACES, replays=st.booleans())
    def go_round(self, at: int, *, replays: bool) -> None:
        """A round of the outbox, or of renewal."""
        redis = self._process(at).redis
        if not redis.away:
            redis.replay() if replays else redis.renew()

    @rule(amount=AMOUNTS)
    def top_up(self, amount: int) -> None:
        self.world.balance += amount

    @invariant()
    def never_overdrawn_by_more_than_a_share_for_each_process(self) -> None:
        assert self.left >= -SHARE * self.number

    def _process(self, at: int) -> Process:
        return self.processes[at % self.number]


class OutagesOfThree(Outages):
    number = 3


@pytest.mark.parametrize("machine", [Outages, OutagesOfThree])
def test_a_budget_is_overdrawn_by_no_more_than_the_bound_however_often_redis_goes(machine: type[Outages]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.fixture
def outages() -> Iterator[Outages]:
    """One process that has met Redis, and spent its share."""
    machine = Outages()
    machine.ask_and_be_answered(0, 0)
    machine.redis_goes_or_comes(0)
    machine.ask_and_be_answered(0, SHARE)
    assert machine.left == -SHARE, "the bound is reached"
    machine.end(1, 1.0, left=False)
    machine.redis_goes_or_comes(0)
    yield machine
    machine.teardown()


def test_no_share_is_given_anew_while_redis_does_not_know_all(outages: Outages) -> None:
    outages.ask_and_be_answered(0, 0)
    outages.redis_goes_or_comes(0)
    outages.ask_and_be_answered(0, SHARE)
    assert outages.left == -SHARE


def test_no_share_is_given_anew_by_what_redis_let_in_before_it_knew_all(outages: Outages) -> None:
    outages.ask(0, 0)
    outages.script_runs(0, 0)
    outages.go_round(0, replays=True)
    outages.reply_comes(0, 0, lost=False)
    outages.redis_goes_or_comes(0)
    outages.ask_and_be_answered(0, SHARE)
    assert outages.left == -SHARE


def test_a_share_is_given_anew_to_who_is_let_in_by_a_redis_that_knows_all(outages: Outages) -> None:
    outages.go_round(0, replays=True)
    outages.ask_and_be_answered(0, 0)
    outages.redis_goes_or_comes(0)
    outages.ask_and_be_answered(0, SHARE)
    assert outages.left == -SHARE, "it was refused, and so had nothing anew"
    outages.redis_goes_or_comes(0)
    outages.top_up(SHARE)
    outages.ask_and_be_answered(0, 0)
    outages.redis_goes_or_comes(0)
    outages.ask_and_be_answered(0, SHARE)
    assert outages.left == -SHARE
    assert outages.world.balance == SHARE
