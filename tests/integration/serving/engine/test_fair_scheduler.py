"""What the scheduler decides, on vLLM's own scheduler, step by step and without a model."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from support.stepped_engine import BLOCK, SteppedEngine, engine_config
from tokenyard.core.model_files.accelerators import FairnessSpec
from tokenyard_deployments.serving.engine.pinned import UnknownEngine
from tokenyard_deployments.serving.engine.scheduling import pins
from tokenyard_deployments.serving.engine.scheduling.scheduler import MAX_LOOKED_UP

SLOTS = 8
STEP = 64
Start = Callable[..., SteppedEngine]


@pytest.fixture(params=[1, 2], ids=["synchronous", "asynchronous"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    def make(
        *, reserved: int = 1, quantum: int = 256, blocks: int = 4000, loras: int = 0, step_tokens: int = STEP
    ) -> SteppedEngine:
        fairness = FairnessSpec(quantum=quantum, reserved_slots=reserved)
        config = engine_config(tmp_path, slots=SLOTS, step_tokens=step_tokens, fairness=fairness, loras=loras)
        return SteppedEngine(config, blocks=blocks, depth=request.param)

    return make


def flood(
    engine: SteppedEngine, count: int, *, prompt: int = 10, max_tokens: int = 100, adapter: int | None = None
) -> None:
    for number in range(count):
        engine.add(f"flood {number} {adapter}", "flood", prompt, max_tokens, adapter=adapter)


@pytest.mark.parametrize("reserved", [0, 1])
def test_a_newcomer_starts_at_once_beside_a_flood(start: Start, reserved: int) -> None:
    engine = start(reserved=reserved)
    flood(engine, 64)
    for _ in range(30):
        engine.step()
    engine.add("newcomer", "small", 20, 4)
    assert engine.step()["newcomer"] == 20
    engine.run()
    assert engine.finished["newcomer"] - 30 <= 4 + 2
    assert {engine.tokens[f"flood {number} None"] for number in range(64)} == {100}, "who was stopped went on"


def test_a_newcomer_passes_long_prompts(start: Start) -> None:
    engine = start()
    flood(engine, 8, prompt=4000)
    for _ in range(5):
        engine.step()
    engine.add("newcomer", "small", 40, 4)
    scheduled = engine.step()
    assert scheduled["newcomer"] == 40
    assert sum(scheduled.values()) == 40, "the long ones are held, so the step is short"
    assert "newcomer" in engine.step()
    engine.run()
    assert len(engine.finished) == 9


def test_short_prompts_of_many_start_in_one_step(start: Start) -> None:
    engine = start()
    for number in range(6):
        engine.add(f"one {number}", f"organization {number}", 10, 4)
    assert len(engine.step()) == 6


def test_a_slot_goes_to_whoever_has_nothing_running(start: Start) -> None:
    engine = start(reserved=0)
    flood(engine, 40)
    for _ in range(20):
        engine.step()
    for number in range(SLOTS - 1):
        engine.add(f"one {number}", f"organization {number}", 5, 50)
    for _ in range(3):
        scheduled = engine.step()
    assert sum(name.startswith("one") for name in scheduled) == SLOTS - 1
    assert sum(name.startswith("flood") for name in scheduled) == 1, "nobody gives up its only slot"


@pytest.mark.parametrize(("weight", "reserved", "share"), [(1, 0, 4), (3, 0, 6), (1, 1, 3), (3, 1, 5)])
def test_slots_follow_weights_before_long_answers_end(start: Start, weight: int, reserved: int, share: int) -> None:
    engine = start(quantum=64, reserved=reserved)
    flood(engine, 20, max_tokens=1000)
    for _ in range(10):
        engine.step()
    for number in range(20):
        engine.add(f"other {number}", "other", 10, 1000, weight=weight)
    for _ in range(60):
        scheduled = engine.step()
    assert sum(name.startswith("other") for name in scheduled) == share
    assert len(scheduled) == SLOTS - reserved
    preempted = sum(one.num_preemptions for one in engine.scheduler.requests.values())
    assert preempted <= share, "nobody is stopped to and fro"


def test_a_newcomer_finds_memory(start: Start) -> None:
    """Seven sequences fill the memory; the newcomer's prompt needs more than is left."""
    engine = start(blocks=7 * 20)
    flood(engine, 7, prompt=200, max_tokens=100)
    while engine.scheduler.kv_cache_manager.usage < 0.75:
        engine.step()
    engine.add("newcomer", "small", 50 * BLOCK, 4)
    began = engine.steps
    engine.run()
    assert engine.started["newcomer"] - began <= 50 * BLOCK // (STEP - SLOTS) + 6
    assert len(engine.finished) == 8
    assert {engine.tokens[f"flood {number} None"] for number in range(7)} == {100}


def test_where_memory_ends_the_most_served_waits(start: Start) -> None:
    engine = start(blocks=24)
    flood(engine, 4, prompt=32, max_tokens=120)
    for _ in range(60):
        engine.step()
    engine.add("small", "small", 16, 100)
    engine.run()
    assert engine.finished["small"] < min(engine.finished[f"flood {number} None"] for number in (2, 3))
    assert engine.finished["small"] - engine.started["small"] <= 101, "it never had to stop"
    assert len(engine.finished) == 5


def test_a_prefix_that_is_computed_goes_first_within_the_quantum(start: Start) -> None:
    engine = start(quantum=100, reserved=0)
    shared = list(range(4 * BLOCK))
    engine.add("first", "a", shared, 1)
    engine.run()
    for number in range(SLOTS):
        engine.add(f"busy {number}", "busy", 1, 30)
    engine.step()
    engine.add("cold", "b", 4 * BLOCK, 1)
    engine.add("warm", "b", [*shared, 1], 1)
    engine.run()
    assert engine.started["warm"] < engine.started["cold"]


def test_nobody_is_passed_for_ever_by_younger_ones(start: Start) -> None:
    engine = start(reserved=0)
    shared = list(range(4 * BLOCK))
    engine.add("first", "a", shared, 1)
    for number in range(SLOTS):
        engine.add(f"busy {number}", "a", 1, 60)
    for _ in range(3):
        engine.step()
    engine.add("cold", "a", 4 * BLOCK, 1)
    for number in range(100):
        engine.add(f"warm {number}", "a", [*shared, number], 20)
    engine.run()
    earlier = [
        name for name, step in engine.started.items() if name.startswith("warm") and step < engine.started["cold"]
    ]
    assert 0 < len(earlier) <= 16 + SLOTS


def test_never_more_adapters_than_places(start: Start) -> None:
    engine = start(loras=2)
    for number in range(30):
        engine.add(f"one {number}", f"organization {number % 5}", 100, 10, adapter=1 + number % 4)
    while len(engine.finished) < 30:
        engine.step()
        assert len({one.lora_request.lora_int_id for one in engine.scheduler.running}) <= 2


def test_a_cold_adapter_gets_a_place_from_the_most_served(start: Start) -> None:
    engine = start(loras=2)
    for number in range(40):
        engine.add(f"hot {number}", "flood", 10, 400, adapter=1 + number % 2)
    for _ in range(50):
        engine.step()
    began = engine.steps
    engine.add("cold", "small", 10, 4, adapter=3)
    while "cold" not in engine.started:
        engine.step()
    # Two adapters on seven slots: the quantum of 256 is used up in 256 / (2 x 7) steps.
    assert engine.started["cold"] - began <= 256 // (2 * (SLOTS - 1)) + 4
    engine.run()
    assert {engine.tokens[f"hot {number}"] for number in range(40)} == {400}


def test_nobody_is_stopped_for_who_could_not_start(start: Start) -> None:
    """Both places are taken and the newcomer served as much as the others: it waits for a place, not for a slot."""
    engine = start(loras=2, quantum=10_000, reserved=0)
    for number in range(20):
        engine.add(f"hot {number}", "flood", 10, 60, adapter=1 + number % 2)
    for _ in range(20):
        engine.step()
    engine.add("cold", "small", 10, 4, adapter=3)
    engine.run()
    assert engine.tokens["cold"] == 4
    assert engine.preemptions == 0


def test_an_organization_s_own_adapters_take_turns(start: Start) -> None:
    engine = start(loras=2)
    for number in range(20):
        engine.add(f"hot {number}", "one", 10, 20, adapter=1 + number % 2)
    engine.step()
    engine.add("cold", "one", 10, 4, adapter=3)
    for number in range(20, 100):
        engine.add(f"hot {number}", "one", 10, 20, adapter=1 + number % 2)
    engine.run()
    earlier = sum(step < engine.started["cold"] for step in engine.started.values())
    assert earlier <= 20 + 16 + SLOTS, "the younger ones do not keep both places for themselves"
    assert len(engine.finished) == 101


def test_who_finds_no_memory_stops_nobody(start: Start) -> None:
    """A holds memory half way through its prompt, P finds too little for its own, X is served less than both."""
    engine = start(blocks=100, step_tokens=512)
    engine.add("a", "a", 1280, 4)
    engine.step()
    engine.add("p", "p", 1200, 4)
    engine.add("x", "x", 480, 4)
    engine.run(400)
    assert engine.finished.keys() == {"a", "p", "x"}


def test_a_newcomer_does_not_wait_for_whole_answers_of_many(start: Start) -> None:
    """As many organizations as slots, each with one long answer."""
    engine = start(reserved=0)
    for number in range(SLOTS):
        engine.add(f"long {number}", f"organization {number}", 10, 3000)
    for _ in range(600):
        engine.step()
    engine.add("newcomer", "small", 10, 4)
    began = engine.steps
    while "newcomer" not in engine.started:
        engine.step()
    assert engine.started["newcomer"] - began <= 3
    engine.run()
    assert {engine.tokens[f"long {number}"] for number in range(SLOTS)} == {3000}


def test_those_that_may_not_start_block_no_other_of_their_organization(start: Start) -> None:
    engine = start(loras=1)
    engine.add("long", "other", 10, 400, adapter=1)
    engine.step()
    for number in range(6):
        engine.add(f"barred {number}", "one", 10, 4, adapter=2)
    engine.add("base", "one", 10, 4)
    began = engine.steps
    while "base" not in engine.started:
        engine.step()
    assert engine.started["base"] - began <= 3
    engine.run()
    assert len(engine.finished) == 8


def test_few_blocks_are_looked_up_in_a_step(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start(blocks=520)
    shared = list(range(500 * BLOCK))
    engine.add("first", "one", shared, 1)
    engine.run()
    engine.add("holder", "one", [*shared, 1], 400)
    for _ in range(3):
        engine.step()
    for number in range(100):
        engine.add(f"waits {number}", "one", [*shared, number + 2, *range(20 * BLOCK)], 4)
    looked_up: list[int] = []
    manager = engine.scheduler.kv_cache_manager
    original = manager.get_computed_blocks

    def counted(request: Request) -> tuple[object, int, int]:
        found: tuple[object, int, int] = original(request)
        looked_up.append(found[1] // BLOCK)
        return found

    monkeypatch.setattr(manager, "get_computed_blocks", counted)
    engine.step()
    assert sum(looked_up) <= MAX_LOOKED_UP + 2 * 500


def test_a_client_that_leaves_frees_its_slot(start: Start) -> None:
    engine = start(reserved=0)
    flood(engine, SLOTS + 1, max_tokens=1000)
    for _ in range(5):
        engine.step()
    engine.abort("flood 0 None")
    engine.step()
    assert f"flood {SLOTS} None" in engine.step()
    engine.abort(*(f"flood {number} None" for number in range(SLOTS + 1)))
    engine.run()
    assert not engine.scheduler.requests
    assert len(engine.scheduler.waiting) == 0
    assert engine.scheduler.kv_cache_manager.usage == 0


def test_embeddings_are_shared_alike(start: Start) -> None:
    engine = start()
    for number in range(50):
        engine.add(f"flood {number}", "flood", 60, 1, pooled=True)
    for _ in range(3):
        engine.step()
    engine.add("newcomer", "small", 60, 1, pooled=True)
    began = engine.steps
    engine.run()
    assert engine.finished["newcomer"] - began <= 4
    assert len(engine.finished) == 51


def test_what_nobody_is_billed_for_is_the_platform_s_own(start: Start) -> None:
    engine = start()
    flood(engine, 20)
    engine.step()
    probe = engine.add("probe", "", 5, 1)
    assert probe.trace_headers is None, "what was told is not sent back with each token"
    assert engine.step()["probe"] == 5


def test_its_state_is_reported_by_weight(start: Start) -> None:
    engine = start()
    flood(engine, 20)
    engine.add("other", "other", 10, 3, weight=3)
    while not engine.reports:
        engine.step()
    report = engine.reports[0]
    assert dict(report["waiting_tokens"])[1] > 0
    assert set(dict(report["running_tokens"])) <= {1, 3}
    assert report["organizations"] == 2
    assert 0 < report["prompt_tokens_left"] <= 20 * 1000
    engine.run()
    assert engine.reports[-1]["prompt_tokens_left"] == 0, (
        "who chooses by it must not take an idle engine for a busy one"
    )


def test_a_first_token_is_reported_once(start: Start) -> None:
    engine = start()
    flood(engine, 5, max_tokens=30)
    engine.run()
    assert sum(len(report["waits"]) for report in engine.reports) + len(engine.scheduler._reports._waits) == 5


def test_another_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pins.check_scheduler()
    monkeypatch.setattr(pins, "KNOWN", ((Scheduler.schedule, "0" * 16),))
    with pytest.raises(UnknownEngine, match=r"Scheduler\.schedule changed"):
        pins.check_scheduler()
