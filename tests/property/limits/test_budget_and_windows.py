"""The scripts against a plain model of what they should do, with time in the test's hands."""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from support.fakes.admission_requests import KEY, ORGANIZATION, PROJECT, admission_request, principal
from support.money.live_budgets import pack_budget, pending_on
from support.redis_reader import as_bytes, unpack_scope
from tokenyard.core.budgets import BudgetState, BudgetUpdate, wallet
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.core.redis_keys import (
    bucket_of,
    bucket_tag,
    budget,
    holds,
    pending,
    ready,
    request,
    usage_stream,
    windows,
)
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.limits.holds import Hold, HoldSettlement, admit_arguments, hold_of, limits_of
from tokenyard.limits.live_budgets import ledger_arguments
from tokenyard.limits.scripts import Argument, ScriptName, script_text

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)
LEASE_MS = 30_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
CALLER = principal(
    key=Limits(requests_per_minute=4, tokens_per_minute=60),
    project=Limits(concurrency=3),
    organization=Limits(requests_per_minute=6, tokens_per_day=300, requests_per_day=30),
)
# owner, what, limit, length of the window
WINDOWS = (
    (KEY, "rpm", 4, MINUTE_MS),
    (KEY, "tpm", 60, MINUTE_MS),
    (ORGANIZATION, "rpm", 6, MINUTE_MS),
    (ORGANIZATION, "tpd", 300, DAY_MS),
    (ORGANIZATION, "rpd", 30, DAY_MS),
)


@dataclass
class Window:
    """What came in when; `parts` are counted in twelfths, as the rule says."""

    limit: int
    length_ms: int
    entries: list[list[int]] = field(default_factory=list)  # [at ms, count]

    def used(self, now: int) -> int:
        width = self.length_ms // 12
        return sum(count for at, count in self.entries if at // width >= now // width - 12)

    def worst(self) -> int:
        """Return the most that any real window of this length ever held."""
        times = [at for at, _ in self.entries]
        sums = [0]
        for _, count in self.entries:
            sums.append(sums[-1] + count)
        ends = (bisect.bisect_left(times, at + self.length_ms) for at in times)
        return max((sums[end] - sums[start] for start, end in enumerate(ends)), default=0)


@dataclass
class Open:
    """A request that was let in, as the model knows it."""

    hold: Hold
    lease_end: int
    entries: list[tuple[Window, list[int]]]


class Machine(RuleBasedStateMachine):
    client: redis.Redis
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.client.set(ready(BUCKET), 1)
        self.now = 1_800_000_000_000
        self.unit, self.ledger, self.version = 1, 0, 1
        self.pending: dict[str, int] = {}
        self.open: dict[str, Open] = {}
        self.known: dict[str, Open] = {}
        self.undecided: dict[str, Open] = {}
        self.settled: set[str] = set()
        self.decided: set[str] = set()
        self.events = 0
        self.windows = {(owner, what): Window(limit, length) for owner, what, limit, length in WINDOWS}

    @initialize(unit=st.sampled_from([1, 10**9 - 1, 2**51 + 1]))
    def give(self, unit: int) -> None:
        """Amounts are exact far beyond what Lua counts exactly."""
        self.unit, self.ledger = unit, 150 * unit
        self.client.set(budget(BUCKET, WALLET), pack_budget(BudgetFigures(self.ledger, self.version)))

    def run(self, script: ScriptName, *arguments: Argument) -> Any:
        return self.client.eval(script_text(script), 1, bucket_tag(BUCKET), *arguments)

    @property
    def available(self) -> int:
        return self.ledger - sum(self.pending.values()) - sum(one.hold.amount for one in self.open.values())

    @rule(seconds=st.sampled_from([5, 25, 30, 60, 65]) | st.floats(0, 12) | st.floats(0, 90) | st.floats(0, 100_000))
    def wait(self, seconds: float) -> None:
        self.now += int(seconds * 1000)

    @rule(
        target=requests, amount=st.integers(0, 5) | st.integers(0, 120), tokens=st.integers(0, 15) | st.integers(0, 70)
    )
    def admit(self, amount: int, tokens: int) -> Any:
        amount *= self.unit
        asked = admission_request(CALLER, amount=amount, tokens=tokens)
        limits = limits_of(asked)
        taken = hold_of(asked, asked.claims, limits)
        arguments = admit_arguments(asked, taken, limits, lease_ms=LEASE_MS, now_ms=self.now)
        reply = self.run(ScriptName.ADMIT, *arguments)
        expected = self._verdict(amount, tokens)
        assert reply[0] == expected
        if expected != b"ok":
            if expected == b"rate" and reply[4] > 0:
                self._check_wait(reply[4], amount, tokens)
            return multiple()
        assert reply[1] == self.now
        entries = []
        for (_, what), window in self.windows.items():
            entry = [self.now, tokens if what.startswith("t") else 1]
            window.entries.append(entry)
            if what.startswith("t"):
                entries.append((window, entry))
        admitted = Hold(
            **{name: getattr(taken, name) for name in taken.__struct_fields__} | {"admitted_at_ms": self.now}
        )
        one = Open(admitted, self.now + LEASE_MS, entries)
        self.open[taken.key] = self.known[taken.key] = one
        assert self.run(ScriptName.ADMIT, *arguments)[:2] == [b"ok", self.now]
        return taken.key

    def _verdict(self, amount: int, tokens: int, now: int | None = None) -> bytes:
        at = self.now if now is None else now
        if self.available < amount:
            return b"budget"
        fits = all(
            window.used(at) + (tokens if what.startswith("t") else 1) <= window.limit
            for (_, what), window in self.windows.items()
        )
        return b"ok" if fits and len(self.open) < 3 else b"rate"

    def _check_wait(self, wait_ms: int, amount: int, tokens: int) -> None:
        """After the stated wait the windows let it in; where only windows refused, not a moment before."""
        if len(self.open) >= 3:
            return
        assert self._verdict(amount, tokens, self.now + wait_ms) == b"ok"
        assert self._verdict(amount, tokens, self.now + wait_ms - 1) == b"rate"

    def _settle(self, hold: Hold, cost: int, tokens: int | None, scopes: str) -> Any:
        settlement = HoldSettlement(ORGANIZATION, hold.key, NanoDollars(cost), tokens, b"{}", hold.budgets, scopes)
        return self.run(ScriptName.SETTLE, *settlement.arguments())

    @rule(key=requests, share=st.floats(0, 1), spent=st.floats(0, 1), known=st.booleans())
    def settle(self, key: str, share: float, spent: float, known: bool) -> None:
        """Its gateway still knows the hold, or does not."""
        one = self.known[key]
        scopes = one.hold.scopes if known else ""
        cost, tokens = int(one.hold.amount * Fraction(spent)), int(one.hold.tokens * share)
        changed = self._settle(one.hold, cost, tokens, scopes)
        assert changed == (key not in self.settled)
        if not changed:
            return
        self.settled.add(key)
        self.events += 1
        self.pending.pop(key, None)
        if cost:
            self.pending[key] = cost
        self._count(self.open.pop(key, None) or self.undecided.pop(key, None), tokens)

    @rule(key=requests)
    def leave(self, key: str) -> None:
        """The client left: what was held stays taken, in the budgets and in the windows."""
        one = self.known[key]
        changed = self._settle(one.hold, one.hold.amount, None, one.hold.scopes)
        assert changed == (key not in self.settled)
        if changed:
            self.settled.add(key)
            self.events += 1
            self._leave_undecided(key)

    @rule(key=requests, share=st.floats(0, 1), spent=st.floats(0, 1))
    def decide(self, key: str, share: float, spent: float) -> None:
        """The ledger charges a request that was settled or swept; doing it again changes nothing."""
        if key in self.open or key in self.decided:
            return
        one = self.known[key]
        cost, tokens = int(one.hold.amount * Fraction(spent)), int(one.hold.tokens * share)
        if key not in self.undecided:
            cost, tokens = self.pending.get(key, 0), 0  # what it was settled with
        self.decided.add(key)
        self.ledger -= cost
        self.version += 1
        update = BudgetUpdate(WALLET, BudgetState(NanoDollars(self.ledger), self.version), [key])
        for _ in range(2):
            self.run(ScriptName.LEDGER, *ledger_arguments(update))
            self.run(ScriptName.DECIDE, key, tokens)
        self.pending.pop(key, None)
        self._count(self.undecided.pop(key, None), tokens)

    def _leave_undecided(self, key: str) -> None:
        one = self.known[key]
        if one.hold.amount:
            self.pending[key] = one.hold.amount
        if self.open.pop(key, None):
            self.undecided[key] = one

    def _count(self, one: Open | None, tokens: int) -> None:
        """Let the windows count `tokens` where they still count what was held."""
        for window, entry in one.entries if one else ():
            if entry[0] // (window.length_ms // 12) >= self.now // (window.length_ms // 12) - 12:
                entry[1] = tokens

    @rule()
    def sweep(self) -> None:
        due = [key for key, one in self.open.items() if one.lease_end <= self.now]
        arguments = [part for key in self.known for part in (key, b"{}")]
        assert self.run(ScriptName.SWEEP, self.now, *arguments) == len(due)
        for key in due:
            self._leave_undecided(key)
            self.events += 1

    @rule(key=requests)
    def renew(self, key: str) -> None:
        one = self.known[key]
        expected = 0 if key in self.settled else 1 if key in self.open else 2
        if expected == 2:
            return  # what is taken again after an expiry may exceed the limits: tested by itself
        assert self.run(ScriptName.RENEW, self.now, LEASE_MS, key, one.hold.value()) == [expected]
        if expected:
            one.lease_end = self.now + LEASE_MS

    @rule(amount=st.integers(1, 50))
    def top_up(self, amount: int) -> None:
        self.ledger += amount * self.unit
        self.version += 1
        newer = BudgetState(NanoDollars(self.ledger), self.version)
        older = BudgetState(NanoDollars(10**9), self.version - 1)
        assert self.run(ScriptName.LEDGER, *ledger_arguments(BudgetUpdate(WALLET, newer, create=True))) == 1
        assert self.run(ScriptName.LEDGER, *ledger_arguments(BudgetUpdate(WALLET, older, create=True))) == 0

    @invariant()
    def redis_agrees(self) -> None:
        figures = BudgetFigures.unpacked(as_bytes(self.client.get(budget(BUCKET, WALLET))))
        held = sum(one.hold.amount for one in self.open.values())
        assert figures == BudgetFigures(self.ledger, self.version, sum(self.pending.values()), held)
        records = {as_bytes(key): as_bytes(record) for key, record in self.client.hgetall(pending(BUCKET)).items()}
        assert pending_on(WALLET, records) == self.pending
        assert self.client.zcard(holds(BUCKET)) == len(self.open)
        assert all(self.client.get(request(BUCKET, key)) == one.hold.value() for key, one in self.open.items())
        packed = self.client.get(windows(BUCKET, PROJECT))
        assert unpack_scope(None if packed is None else as_bytes(packed)).slots == len(self.open)
        assert self.client.xlen(usage_stream(BUCKET)) == self.events

    @invariant()
    def never_above_a_limit(self) -> None:
        # What is settled after its decision is pending until the ledger has read it, and lets in less meanwhile.
        late = sum(amount for key, amount in self.pending.items() if key in self.decided)
        assert self.available + late >= 0
        for window in self.windows.values():
            assert window.worst() <= window.limit


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def test_scripts_do_what_the_model_says(client: redis.Redis) -> None:
    Machine.client = client
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
