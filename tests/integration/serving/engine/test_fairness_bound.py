"""The published bound on unfairness, and that nothing is lost on the way, whatever is asked of the scheduler."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("vllm")

from vllm.v1.core.sched.scheduler import Scheduler

from support.stepped_engine import SteppedEngine, engine_config
from tokenyard.core.model_files.accelerators import FairnessSpec

STEPS = 200
BLOCKS = 400
SHORT = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@dataclass(frozen=True)
class Tenant:
    """Keeps `backlog` requests of one shape in the engine."""

    name: str
    weight: int
    prompt: int
    max_tokens: int
    backlog: int


@dataclass(frozen=True)
class Load:
    tenants: tuple[Tenant, Tenant]
    slots: int
    step_tokens: int
    fairness: FairnessSpec
    depth: int

    @property
    def bound(self) -> float:
        """Of weighted service: theorem 4.4 of VTC (OSDI 2024) with the quantum of DLPM (arXiv 2501.14312).

        2 x (U + quantum) ÷ the smaller weight, where U is the larger of the longest prompt and twice the most tokens
        that a batch can hold.
        """
        batch = self.slots * max(one.prompt + one.max_tokens for one in self.tenants)
        longest = max(one.prompt for one in self.tenants)
        return 2 * (max(longest, 2 * batch) + self.fairness.quantum) / min(one.weight for one in self.tenants)


def tenants(name: str) -> st.SearchStrategy[Tenant]:
    return st.builds(
        Tenant,
        st.just(name),
        weight=st.integers(1, 4),
        prompt=st.integers(1, 120),
        max_tokens=st.integers(1, 60),
        backlog=st.integers(12, 40),
    )


LOADS = st.builds(
    Load,
    st.tuples(tenants("a"), tenants("b")),
    slots=st.integers(2, 6),
    step_tokens=st.sampled_from([16, 32, 100]),
    fairness=st.builds(FairnessSpec, quantum=st.integers(0, 200), reserved_slots=st.integers(0, 1)),
    depth=st.sampled_from([1, 2]),
)


def widest_gap(engine: SteppedEngine, load: Load) -> float:
    """Return by how much the weighted services differ over the worst stretch in which both tenants wait."""
    sent = 0
    gaps = [0.0]
    for _ in range(STEPS):
        for tenant in load.tenants:
            for _ in range(tenant.backlog - engine.waiting(tenant.name)):
                sent += 1
                engine.add(f"{tenant.name}{sent}", tenant.name, tenant.prompt, tenant.max_tokens, weight=tenant.weight)
        engine.step()
        first, second = (engine.service[one.name] / one.weight for one in load.tenants)
        gaps.append(first - second)
    return max(gaps) - min(gaps)


@SHORT
@given(load=LOADS)
def test_two_that_wait_are_served_by_weight(load: Load, tmp_path: Path) -> None:
    config = engine_config(tmp_path, slots=load.slots, step_tokens=load.step_tokens, fairness=load.fairness, loras=0)
    engine = SteppedEngine(config, blocks=BLOCKS, depth=load.depth)
    assert widest_gap(engine, load) <= load.bound


def test_first_come_first_served_breaks_the_bound(tmp_path: Path) -> None:
    """The bound is one that an engine can miss: vLLM's own scheduler does."""
    greedy, modest = Tenant("a", 1, 20, 40, backlog=40), Tenant("b", 1, 20, 2, backlog=1)
    load = Load((greedy, modest), slots=2, step_tokens=32, fairness=FairnessSpec(0, 0), depth=1)
    config = engine_config(tmp_path, slots=2, step_tokens=32, fairness=load.fairness, loras=0)
    assert widest_gap(SteppedEngine(config, blocks=BLOCKS, make=Scheduler), load) > load.bound


@dataclass(frozen=True)
class Act:
    """Send a sequence, or let the client of an earlier one leave; then some steps."""

    organization: int
    prompt: int
    max_tokens: int
    adapter: int | None
    shared: bool
    leaves: int | None
    steps: int


ACTS = st.lists(
    st.builds(
        Act,
        organization=st.integers(0, 4),
        prompt=st.integers(1, 300),
        max_tokens=st.integers(1, 40),
        adapter=st.none() | st.integers(1, 4),
        shared=st.booleans(),
        leaves=st.none() | st.integers(0, 60),
        steps=st.integers(0, 3),
    ),
    min_size=5,
    max_size=60,
)


@SHORT
@given(acts=ACTS, reserved=st.integers(0, 2), quantum=st.sampled_from([0, 64, 1000]), depth=st.sampled_from([1, 2]))
def test_everybody_gets_all_tokens(acts: list[Act], reserved: int, quantum: int, depth: int, tmp_path: Path) -> None:
    """Little memory, few slots, few places for adapters, and clients that leave."""
    fairness = FairnessSpec(quantum=quantum, reserved_slots=reserved)
    engine = SteppedEngine(
        engine_config(tmp_path, slots=4, step_tokens=48, fairness=fairness, loras=2), blocks=60, depth=depth
    )
    wanted: dict[str, int] = {}
    gone: set[str] = set()
    empty_steps = 0

    def step() -> None:
        nonlocal empty_steps
        scheduled = engine.step()
        empty_steps = 0 if scheduled or not engine.scheduler.has_requests() else empty_steps + 1
        assert empty_steps <= 2 * depth, "nobody computes although somebody wants to"
        running = engine.scheduler.running
        assert sum(scheduled.values()) <= 48
        assert len(running) <= 4
        assert len({one.lora_request.lora_int_id for one in running if one.lora_request}) <= 2
        inside = [one.request_id for one in running] + [one.request_id for one in engine.scheduler.waiting]
        assert len(inside) == len(set(inside)) == len(engine.scheduler.requests)

    for number, act in enumerate(acts):
        name = f"sequence {number}"
        prompt = list(range(act.prompt)) if act.shared else act.prompt
        engine.add(
            name,
            f"organization {act.organization}",
            prompt,
            act.max_tokens,
            weight=1 + act.organization % 3,
            adapter=act.adapter,
        )
        wanted[name] = act.max_tokens
        if act.leaves is not None and (left := f"sequence {act.leaves}") in wanted:
            engine.abort(left)
            gone.add(left)
        for _ in range(act.steps):
            step()
    for _ in range(5000):
        if not engine.scheduler.has_requests():
            break
        step()
    assert not engine.scheduler.requests, "somebody starves"
    assert {name: engine.tokens[name] for name in wanted if name not in gone} == {
        name: tokens for name, tokens in wanted.items() if name not in gone
    }
    assert engine.scheduler.kv_cache_manager.usage == 0
