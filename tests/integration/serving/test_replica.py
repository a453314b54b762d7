"""A real replica under Ray Serve, spoken to on its own port: its answers, its adapters, its witness, its front."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import torch

from support.adapters.published_adapter import rewrite_weights
from support.replica_caller import (
    CHAT,
    COMPLETIONS,
    MODEL,
    ORGANIZATION,
    REPORT_TIMEOUT_S,
    ReplicaCaller,
    chat,
    claims,
    engines,
)
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import OrganizationId
from tokenyard.core.replica import LOAD_HEADER, AdapterRefused, ReplicaLoad
from tokenyard.metering import header as meter
from tokenyard.metering.events import ReplicaReported
from tokenyard_deployments.serving.engine.cpus import usable_cpus

pytestmark = [pytest.mark.timeout(500), pytest.mark.asyncio]

OTHER = OrganizationId("org_other")
LONG = "Tell me everything you know about the sea, the wind and the stars."


def same(report: ReplicaReported, usage: dict[str, Any]) -> bool:
    details = usage.get("prompt_tokens_details") or {}
    counted = (report.usage.prompt_tokens, report.usage.completion_tokens, report.usage.cached_tokens)
    return counted == (usage["prompt_tokens"], usage["completion_tokens"], details.get("cached_tokens") or 0)


async def test_it_answers_and_reports_what_the_answer_says(caller: ReplicaCaller) -> None:
    asked = claims()
    answer = await caller.ask(chat("What is the capital of France?", max_tokens=16), asked)
    assert "Paris" in answer["choices"][0]["message"]["content"]
    report = await caller.report(asked.attempt)
    assert same(report, answer["usage"])
    assert report.finished
    assert report.claims == asked
    assert report.replica == caller.target.name


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, chat("Count to ten.", n=2, temperature=1)),
        (COMPLETIONS, {"model": MODEL, "prompt": ["One, two,", "A, B, C,"], "max_tokens": 5}),
        (COMPLETIONS, {"model": MODEL, "prompt": [1, 2, 3, 4], "max_tokens": 3, "n": 2}),
        ("/v1/responses", {"model": MODEL, "input": "Hello", "max_output_tokens": 6}),
    ],
    ids=["two-answers", "two-prompts", "token-ids", "responses"],
)
async def test_every_shape_of_request_is_counted_exactly(
    caller: ReplicaCaller, endpoint: str, body: dict[str, Any]
) -> None:
    asked = claims(endpoint=endpoint)
    usage = (await caller.ask(body, asked))["usage"]
    if endpoint == "/v1/responses":
        usage = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
    assert same(await caller.report(asked.attempt), usage)


async def test_a_cached_prompt_is_reported_as_cached(caller: ReplicaCaller) -> None:
    body = chat("Remember this. " * 40)
    await caller.ask(body, claims())
    asked = claims()
    usage = (await caller.ask(body, asked))["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0
    assert same(await caller.report(asked.attempt), usage)


async def test_organizations_find_nothing_of_each_other_s_prompts_and_each_its_own(caller: ReplicaCaller) -> None:
    """Asked as gateways ask, each with its organization's salt."""
    cached: dict[str, list[int]] = {}
    for organization in (ORGANIZATION, OTHER, ORGANIZATION, OTHER):
        body = chat("A secret of two. " * 40, cache_salt=meter.cache_salt(organization, caller.cluster.meter_secret))
        usage = (await caller.ask(body, claims(organization=organization)))["usage"]
        cached.setdefault(organization, []).append(usage["prompt_tokens_details"]["cached_tokens"])
    for first, second in cached.values():
        assert first == 0, "nothing across"
        assert second > 100, "its own, within"


async def test_a_stream_is_reported_as_its_last_frame_says(caller: ReplicaCaller) -> None:
    asked = claims()
    body = chat(LONG, max_tokens=12, stream=True, stream_options={"include_usage": True})
    async with caller.send(body, asked) as response:
        frames = [line async for line in response.content if line.startswith(b"data: {")]
    usage = json.loads(frames[-1].removeprefix(b"data: "))["usage"]
    report = await caller.report(asked.attempt)
    assert same(report, usage)
    assert report.finished


async def test_a_stream_that_the_client_leaves_is_counted_to_the_token(caller: ReplicaCaller) -> None:
    asked = claims()
    usage = {"include_usage": True, "continuous_usage_stats": True}
    body = chat(LONG, max_tokens=400, stream=True, stream_options=usage, ignore_eos=True)
    seen = 0
    async with caller.send(body, asked) as response:
        async for line in response.content:
            if line.startswith(b"data: {"):
                seen = json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
            if seen >= 10:
                break
        response.close()
    report = await caller.report(asked.attempt)
    assert not report.finished
    assert report.usage.prompt_tokens > 0
    # The engine goes on until it hears of it: never less than was relayed, and far from all.
    assert seen <= report.usage.completion_tokens < 400
    await caller.idle()


async def test_a_request_that_does_not_stream_and_is_left_is_counted_too(caller: ReplicaCaller) -> None:
    asked = claims()
    before = await caller.generated()

    async def ask() -> None:
        async with caller.send(chat(LONG, max_tokens=900, ignore_eos=True), asked):
            pass

    request = asyncio.create_task(ask())
    async with asyncio.timeout(REPORT_TIMEOUT_S):
        while await caller.generated() < before + 5:  # noqa: ASYNC110 - the engine's own count
            await asyncio.sleep(0.02)
    request.cancel()
    report = await caller.report(asked.attempt)
    assert not report.finished
    assert 5 <= report.usage.completion_tokens < 900
    await caller.idle()


async def test_a_request_that_the_engine_refuses_is_reported_as_nothing(caller: ReplicaCaller) -> None:
    asked = claims()
    async with caller.send(chat("Hello", temperature=-3), asked) as response:
        assert response.status == 400
    assert (await caller.report(asked.attempt)).usage.total_tokens == 0


async def test_what_is_inside_is_bounded_and_who_is_refused_learns_when_to_come_back(caller: ReplicaCaller) -> None:
    """4 slots and 4 places to wait: one organization alone may have 4 inside."""

    async def one() -> tuple[int, str | None]:
        async with caller.send(chat(LONG, max_tokens=40, ignore_eos=True), claims()) as response:
            await response.read()
            return response.status, response.headers.get("retry-after")

    answers = await asyncio.gather(*(one() for _ in range(12)))
    refused = [retry for status, retry in answers if status == 429]
    assert len(refused) == 8
    assert all(retry is not None and int(retry) >= 1 for retry in refused)
    assert sum(status == 200 for status, _ in answers) == 4
    await caller.idle()


async def test_an_adapter_is_loaded_by_the_first_request_that_needs_it(
    caller: ReplicaCaller, publish_adapter: Callable[[Path, str, int], AdapterRef]
) -> None:
    adapter = publish_adapter(caller.cluster.blobs, "ft:smollm2-135m-instruct:test:cold:0000000000000011", 11)
    body = {**chat(LONG, max_tokens=12), "model": adapter.name}
    asked = [claims(adapter) for _ in range(4)]
    answers = await asyncio.gather(*(caller.ask(body, one) for one in asked))
    base = await caller.ask(chat(LONG, max_tokens=12), claims())
    texts = {answer["choices"][0]["message"]["content"] for answer in answers}
    assert base["choices"][0]["message"]["content"] not in texts
    assert all(answer["model"] == adapter.name for answer in answers)
    assert adapter.name in (await caller.control.stats(caller.target)).adapters
    for one, answer in zip(asked, answers, strict=True):
        assert same(await caller.report(one.attempt), answer["usage"])


async def test_the_canary_tells_an_adapter_from_its_base(
    caller: ReplicaCaller, publish_adapter: Callable[[Path, str, int], AdapterRef]
) -> None:
    adapter = publish_adapter(caller.cluster.blobs, "ft:smollm2-135m-instruct:test:canary:0000000000000012", 12)
    await caller.control.load(caller.replica, adapter)
    base = await caller.control.canary(caller.target.url, None, "Hello!")
    tuned = await caller.control.canary(caller.target.url, adapter.name, "Hello!")
    assert len(base) == len(tuned) > 5
    assert max(abs(one - other) for one, other in zip(base, tuned, strict=True)) > 0.01
    assert await caller.control.canary(caller.target.url, None, "Hello!") == pytest.approx(base, abs=0.05)
    with pytest.raises(AdapterRefused):
        await caller.control.canary(caller.target.url, "ft:nobody", "Hello!")


async def test_more_adapters_than_memory_take_turns(
    caller: ReplicaCaller, publish_adapter: Callable[[Path, str, int], AdapterRef]
) -> None:
    """Three fit: the least recently used one makes room, and comes back when it is asked for."""
    adapters = [
        publish_adapter(caller.cluster.blobs, f"ft:smollm2-135m-instruct:test:turn:{number:016x}", number)
        for number in range(21, 26)
    ]
    for adapter in [*adapters, adapters[0]]:
        answer = await caller.ask({**chat("Hello", max_tokens=2), "model": adapter.name}, claims(adapter))
        assert answer["model"] == adapter.name
    held = (await caller.control.stats(caller.target)).adapters
    assert len(held) == 3
    assert held[-1] == adapters[0].name
    pinned = adapters[0].name
    await caller.control.pin(caller.replica, [pinned, adapters[1].name])
    for adapter in [*adapters[1:], *adapters[1:]]:
        await caller.ask({**chat("Hello", max_tokens=2), "model": adapter.name}, claims(adapter))
        assert pinned in (await caller.control.stats(caller.target)).adapters, "a pinned one makes room for nobody"
    uses = await caller.control.uses(caller.replica)
    assert (uses.pinned, uses.places) == ((pinned,), 3), "half of the places at most"
    await caller.control.pin(caller.replica, [])
    await caller.control.unload(caller.replica, adapters[0].name)
    await caller.control.unload(caller.replica, adapters[0].name)
    assert adapters[0].name not in (await caller.control.stats(caller.target)).adapters


@pytest.mark.parametrize("damage", ["missing", "weights", "shape", "digest"])
async def test_a_broken_adapter_harms_nobody(
    caller: ReplicaCaller, publish_adapter: Callable[[Path, str, int], AdapterRef], damage: str
) -> None:
    seed = {"missing": 31, "weights": 32, "shape": 33, "digest": 34}[damage]
    adapter = publish_adapter(caller.cluster.blobs, f"ft:smollm2-135m-instruct:test:bad:{seed:016x}", seed)
    adapter = _damaged(caller.cluster.blobs, adapter, damage)
    with pytest.raises(AdapterRefused):
        await caller.control.load(caller.replica, adapter)
    async with caller.send({**chat("Hello"), "model": adapter.name}, claims(adapter)) as response:
        assert response.status == 503
    assert adapter.name not in (await caller.control.stats(caller.target)).adapters
    await caller.ask(chat("Hello"), claims())


def _damaged(blobs: Path, adapter: AdapterRef, damage: str) -> AdapterRef:
    folder = blobs / adapter.path
    weights = folder / "adapter_model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    elif damage == "digest":
        return msgspec.structs.replace(adapter, digest="0" * 64)
    else:
        # Honestly hashed, but of another shape than the base.
        return rewrite_weights(blobs, adapter, lambda _name, _tensor: torch.zeros(8, 100))
    return adapter


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/internal/stats", "/health", "/docs", CHAT])
async def test_nothing_answers_without_the_bearer(caller: ReplicaCaller, path: str) -> None:
    async with aiohttp.ClientSession() as http:
        for headers in ({}, {"authorization": "Bearer " + "0" * 64}, {"authorization": caller.cluster.bearer}):
            async with http.get(caller.target.url + path, headers=headers) as response:
                assert response.status == 401


async def test_a_forged_or_missing_meter_serves_nothing(caller: ReplicaCaller) -> None:
    forged = meter.sign(claims(), b"another secret, not the replica's")
    for header in (forged, "", "e30=." + "0" * 64):
        async with caller.send(chat("Hello"), claims(), **{meter.HEADER: header}) as response:
            assert response.status == 403
            assert (await response.json())["error"]["code"] == "meter_invalid"


async def test_the_body_must_name_the_model_that_is_billed(
    caller: ReplicaCaller, publish_adapter: Callable[[Path, str, int], AdapterRef]
) -> None:
    adapter = publish_adapter(caller.cluster.blobs, "ft:smollm2-135m-instruct:test:other:0000000000000041", 41)
    await caller.control.load(caller.replica, adapter)
    async with caller.send({**chat("Hello"), "model": adapter.name}, claims()) as response:
        assert response.status == 403


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/inference/v1/generate", "/sleep", "/v1/audio/speech"])
async def test_what_is_not_known_is_not_served(caller: ReplicaCaller, path: str) -> None:
    async with caller.send(chat("Hello"), claims(endpoint=path)) as response:
        assert response.status == 404


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_every_answer_says_how_busy_the_replica_is(caller: ReplicaCaller, stream: bool) -> None:
    await caller.idle()
    texts = [f"{number} {stream} " + "one two three four " * 170 for number in range(3)]
    long = [asyncio.create_task(caller.ask(chat(text, max_tokens=1), claims())) for text in texts]
    async with asyncio.timeout(30):
        while not (await caller.control.stats(caller.target)).waiting_tokens:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    loads = []
    for _ in range(2):
        asked = claims(organization=OrganizationId("org_other"))  # which need not wait for the long prompts
        async with caller.send(chat("Hello", max_tokens=2, stream=stream), asked) as response:
            await response.read()
        loads.append(ReplicaLoad.read(response.headers[LOAD_HEADER].encode()))
        await asyncio.gather(*long)
        await caller.idle()
    busy, idle = loads
    assert busy is not None
    assert (1 < busy.sequences <= 4, busy.slots) == (True, 4)
    assert 0 < busy.waiting_tokens < 3 * 1024
    assert idle == ReplicaLoad(1, 4, 0), "the request itself, whose prompt is computed"
    assert (await caller.control.stats(caller.target)).waiting_tokens == 0


async def test_the_engines_own_metrics_are_there(caller: ReplicaCaller) -> None:
    status, text = await caller.get("/metrics")
    assert status == 200
    assert "vllm:generation_tokens_total" in text
    assert "vllm:num_requests_running" in text


async def test_the_engine_computes_on_all_cpus_in_one_process(caller: ReplicaCaller) -> None:
    """Ray would leave it a single thread on any machine, and vLLM would spin for a worker in a process of its own."""
    found = engines(caller.cluster.processes())
    assert [one.environ()["OMP_NUM_THREADS"] for one in found] == [str(usable_cpus())]
