"""Nothing that one organization does to a real replica harms another: eviction, a store that hangs, wide requests."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch

from support.adapters.published_adapter import rewrite_weights
from support.replica_caller import COMPLETIONS, MODEL, REPORT_TIMEOUT_S, ReplicaCaller, chat, claims
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import OrganizationId
from tokenyard.core.replica import AdapterRefused, Replica
from tokenyard.core.usage import MeterClaims
from tokenyard.finetune.steps.canary import CanaryCheck, CanaryFailed

pytestmark = [pytest.mark.timeout(500), pytest.mark.asyncio]

Publish = Callable[[Path, str, int], AdapterRef]
OTHER = OrganizationId("org_other")
QUESTION = "Tell me about the sea."


def published(caller: ReplicaCaller, publish: Publish, seeds: range) -> list[AdapterRef]:
    return [publish(caller.cluster.blobs, f"ft:{MODEL}:test:many:{seed:016x}", seed) for seed in seeds]


@asynccontextmanager
async def load_of_another(caller: ReplicaCaller, streams: int = 2) -> AsyncIterator[None]:
    """Keep streams of another organization running meanwhile."""

    async def keep_asking() -> None:
        while True:
            async with caller.send(chat(QUESTION, max_tokens=64, ignore_eos=True), claims(organization=OTHER)) as one:
                await one.read()

    tasks = [asyncio.create_task(keep_asking()) for _ in range(streams)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await caller.idle()


async def test_a_canary_keeps_its_adapter_while_others_make_room(
    caller: ReplicaCaller, publish_adapter: Publish
) -> None:
    tested, *others = published(caller, publish_adapter, range(101, 106))
    await caller.control.load(caller.replica, tested)
    going = True

    async def ask() -> int:
        asked = 0
        while going:
            try:
                assert await caller.control.canary(caller.target.url, tested.name, QUESTION)
            except AdapterRefused:  # it was idle between two canaries, and made room
                await caller.control.load(caller.replica, tested)
            asked += 1
        return asked

    canaries = [asyncio.create_task(ask()) for _ in range(3)]
    for adapter in [*others, *others]:
        await caller.control.load(caller.replica, adapter)
    going = False
    assert sum(await asyncio.gather(*canaries)) > 3
    await caller.ask(chat("Hello", max_tokens=2), claims())


async def test_requests_and_unloads_during_evictions_are_all_answered(
    caller: ReplicaCaller, publish_adapter: Publish
) -> None:
    """Six adapters take turns in three places, while the worker unloads what it can."""
    adapters = published(caller, publish_adapter, range(111, 117))
    at_once = asyncio.Semaphore(4)

    async def ask(number: int) -> None:
        adapter = adapters[number % len(adapters)]
        async with at_once:
            answer = await caller.ask({**chat("Hello", max_tokens=3), "model": adapter.name}, claims(adapter))
            assert answer["model"] == adapter.name

    async def unload(number: int) -> None:
        with contextlib.suppress(AdapterRefused):  # in use
            await caller.control.unload(caller.replica, adapters[number % len(adapters)].name)

    await asyncio.gather(*(ask(number) for number in range(24)), *(unload(number) for number in range(12)))
    assert len((await caller.control.stats(caller.target)).adapters) <= 3
    await caller.ask(chat("Hello", max_tokens=2), claims())


async def test_a_store_that_hangs_harms_only_who_waits_for_it(caller: ReplicaCaller, publish_adapter: Publish) -> None:
    stuck, fine = published(caller, publish_adapter, range(121, 123))
    manifest = caller.cluster.blobs / stuck.path / "manifest.json"
    manifest.unlink()
    os.mkfifo(manifest)

    async def ask() -> int:
        async with caller.send({**chat("Hello", max_tokens=2), "model": stuck.name}, claims(stuck)) as response:
            await response.read()
            return response.status

    waiting = [asyncio.create_task(ask()) for _ in range(8)]
    await asyncio.sleep(0.5)
    state = await caller.control.stats(caller.target)
    assert (state.running, state.waiting) == (0, 0), "who waits for its adapter is not inside"
    await asyncio.gather(*(caller.ask(chat("Hello", max_tokens=2), claims(organization=OTHER)) for _ in range(4)))
    await caller.ask({**chat("Hello", max_tokens=2), "model": fine.name}, claims(fine))
    writer = os.open(manifest, os.O_WRONLY | os.O_NONBLOCK)
    manifest.unlink()
    manifest.touch()
    os.close(writer)
    async with asyncio.timeout(REPORT_TIMEOUT_S):
        assert set(await asyncio.gather(*waiting)) == {503}


@pytest.mark.parametrize("body", [{"prompt": ["a"] * 128, "n": 128}, {"prompt": "a", "n": 129}])
async def test_a_request_for_16384_answers_is_refused_by_name(caller: ReplicaCaller, body: dict[str, object]) -> None:
    asked = claims(endpoint=COMPLETIONS)
    async with caller.send({"model": MODEL, "max_tokens": 512, **body}, asked) as response:
        error = (await response.json())["error"]
    assert response.status == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", "n")


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "Once upon a time", "n": 128, "temperature": 1},
        {"prompt": [f"{number} and {'so on, ' * 60}" for number in range(128)]},
    ],
    ids=["answers", "prompts"],
)
async def test_a_wide_request_does_not_hold_the_front_and_is_gone_when_its_client_is(
    caller: ReplicaCaller, body: dict[str, object]
) -> None:
    before = await caller.generated()
    longest = 0.0
    body = {"model": MODEL, "max_tokens": 64, "stream": True, **body}

    async def ask() -> None:
        async with caller.send(body, claims(endpoint=COMPLETIONS)) as response:
            assert response.status == 200, await response.text()
            await response.content.readline()

    asking = asyncio.create_task(ask())
    while not asking.done():
        since = time.monotonic()
        await caller.control.stats(caller.target)
        longest = max(longest, time.monotonic() - since)
        await asyncio.sleep(0.01)
    await asking
    await caller.idle()
    await caller.ask(chat("Hello", max_tokens=2), claims(organization=OTHER))
    # Its 128 answers were not made to their ends.
    assert await caller.generated() - before < 128 * 64 / 2
    assert longest < 2, "the front kept others waiting, not the engine"


async def test_who_leaves_while_many_prompts_are_read_leaves_nothing_behind(caller: ReplicaCaller) -> None:
    prompts = [f"{number} and {'so on, ' * 250}" for number in range(128)]
    body = {"model": MODEL, "max_tokens": 64, "ignore_eos": True, "prompt": prompts}
    for wait_s in (0.01, 0.03, 0.1, 0.3):
        asked = claims(endpoint=COMPLETIONS)

        async def ask(asked: MeterClaims = asked) -> None:
            async with caller.send(body, asked) as response:
                await response.read()

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await ask()
    await caller.idle()
    await caller.ask(chat("Hello", max_tokens=2), claims())
    before = await caller.generated()
    await asyncio.sleep(1)
    assert await caller.generated() == before, "the engine works for somebody who left"


async def test_a_prompt_that_was_left_while_it_was_read_costs_nothing(caller: ReplicaCaller) -> None:
    """How much of it was computed stays inside the engine; none of it is billed."""
    for number in range(5):
        asked = claims()

        async def ask(number: int, asked: MeterClaims) -> None:
            async with caller.send(chat(f"{number} " + "so it goes on " * 220, max_tokens=8), asked):
                pass

        request = asyncio.create_task(ask(number, asked))
        async with asyncio.timeout(REPORT_TIMEOUT_S):
            while not (await caller.control.stats(caller.target)).running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        request.cancel()
        usage = (await caller.report(asked.attempt)).usage
        assert usage.prompt_tokens == 0 or usage.completion_tokens > 0
        if not usage.completion_tokens:
            return
    pytest.fail("no prompt was left in time")


class OneReplica:
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def of(self, model: str) -> Sequence[Replica]:
        return [self._replica]

    async def call_for(self, models: Collection[str]) -> None:
        pass


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_the_gate_tells_an_adapter_that_does_nothing_from_one_that_does_little(
    caller: ReplicaCaller, publish_adapter: Publish, busy: bool
) -> None:
    seed = 131 + 2 * busy
    nothing, little = published(caller, publish_adapter, range(seed, seed + 2))

    def scaled(factor: float) -> Callable[[str, torch.Tensor], torch.Tensor]:
        return lambda name, tensor: tensor * factor if "lora_B" in name else tensor

    nothing = rewrite_weights(caller.cluster.blobs, nothing, scaled(0.0))
    little = rewrite_weights(caller.cluster.blobs, little, scaled(0.1))
    check = CanaryCheck(OneReplica(caller.replica), caller.control)
    async with load_of_another(caller) if busy else contextlib.nullcontext():
        await check.check(MODEL, little)
        with pytest.raises(CanaryFailed, match="learned nothing"):
            await check.check(MODEL, nothing)
