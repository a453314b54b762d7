"""What one organization waits for beside others, through everything: gateway, door, scheduler, engine."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp

from benchmarks.fairness_load import SETTLE_S, Caller, Refused, Reply, beside, complete, digits, percentile, victim
from support.servers.whole_stack import MODEL, Stack, private_environment, replica_url, start, stop
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import ModelSpec
from tokenyard_deployments.base_models.fetch import shipped_specs

ALONE_S = 12.0
BESIDE_S = 25.0
SHARE_S = 60.0
# Under way by the tenants' weights: always more than their shares of the 32 slots, and begun within `max_wait_s`.
BACKLOGS = {1: (40, 40), 3: (20, 40)}
FLOOD = 400
RETRY_EVERY_S, REFUSED_WITHIN_S = 0.1, 1.0
STORY = "Tell a long story about a river and the people who live beside it."
PROMPT_TOKENS, STORY_TOKENS = 16, 150


@dataclass(frozen=True)
class Beside:
    """The victim's times to the first token, in seconds."""

    p50_s: float
    p95_s: float

    @classmethod
    def of(cls, waits: list[float]) -> "Beside":
        return cls(percentile(waits, 0.5), percentile(waits, 0.95))


@dataclass(frozen=True)
class StackFairness:
    """`gaps_over_bound` are by the two tenants' weights."""

    alone: Beside
    beside: dict[str, Beside]
    gaps_over_bound: dict[str, float]
    slot_freed_s: float
    retry_after_error: float


def measure(folder: Path) -> StackFairness:
    stack = start(private_environment(folder))
    try:
        return asyncio.run(_measure(stack))
    finally:
        stop(stack)


async def _measure(stack: Stack) -> StackFairness:
    patient = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=patient, connector=aiohttp.TCPConnector(limit=0)) as http:
        small, greedy = _caller(stack, "small"), _caller(stack, "greedy")
        await victim(http, small, 2)
        alone = Beside.of(await victim(http, small, ALONE_S))
        figures: dict[str, Beside] = {}
        for name, (streams, load) in LOADS.items():
            async with beside(streams, partial(load, http, greedy)):
                figures[name] = Beside.of(await victim(http, small, BESIDE_S))
            print(f"  beside {name}: {figures[name]}", flush=True)  # noqa: T201
        return StackFairness(
            alone=alone,
            beside=figures,
            gaps_over_bound={
                "1_1": await _gap_over_bound(http, greedy, _caller(stack, "equal"), 1),
                "1_3": await _gap_over_bound(http, greedy, _caller(stack, "triple", weight=3), 3),
            },
            slot_freed_s=await _slot_freed_s(http, stack, greedy),
            retry_after_error=await _retry_after_error(http, greedy),
        )


Load = Callable[[aiohttp.ClientSession, Caller, int], Awaitable[object]]


def _story(http: aiohttp.ClientSession, caller: Caller, number: int) -> Awaitable[Reply]:
    return complete(http, caller, f"{number} {STORY}", STORY_TOKENS)


def _wide(http: aiohttp.ClientSession, caller: Caller, number: int) -> Awaitable[Reply]:
    return complete(http, caller, f"{number} {STORY}", 512, n=128)


def _long(http: aiohttp.ClientSession, caller: Caller, number: int) -> Awaitable[Reply]:
    return complete(http, caller, digits(3990, number), 16)


def _half_long(http: aiohttp.ClientSession, caller: Caller, number: int) -> Awaitable[Reply]:
    return complete(http, caller, digits(1990, number), 16)


async def _slow_grammar(http: aiohttp.ClientSession, caller: Caller, number: int) -> None:
    """Each a grammar of its own, of those that take the longest to compile; refused or not."""
    pattern = f"^({number}|[a-z]{{1,20}}-[0-9]{{1,20}}(\\\\.[a-z]{{1,10}}){{1,10}})$"
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}, "required": ["a"]}
    body = {
        "model": caller.model,
        "messages": [{"role": "user", "content": STORY}],
        "max_tokens": 8,
        "response_format": {"type": "json_schema", "json_schema": {"name": "slow", "schema": schema}},
    }
    async with http.post(f"{caller.url}/v1/chat/completions", json=body, headers=caller.headers) as answer:
        await answer.read()


LOADS: dict[str, tuple[int, Load]] = {
    "32_streams": (32, _story),
    "64_streams": (64, _story),
    "wide_request": (1, _wide),
    "long_prompt": (1, _long),
    "8_long_prompts": (8, _half_long),
    "slow_grammars": (4, _slow_grammar),
}


async def _gap_over_bound(http: aiohttp.ClientSession, first: Caller, second: Caller, weight: int) -> float:
    """Let both wait all the time; return the widest gap of their weighted service as a part of the published bound.

    The bound is 2 (U + quantum) ÷ the smaller weight, U = 2 × slots × (prompt + generated tokens): VTC and DLPM, as the
    scheduler states it.
    """
    replies: dict[str, list[Reply]] = {first.name: [], second.name: []}

    def send(caller: Caller, number: int) -> Awaitable[Reply]:
        replies[caller.name].append(reply := Reply())
        return complete(http, caller, f"{number} {STORY}", STORY_TOKENS, reply=reply)

    def service(caller: Caller) -> float:
        return sum(PROMPT_TOKENS * (one.first_s is not None) + 2 * one.tokens for one in replies[caller.name])

    gaps: list[float] = []
    of_first, of_second = BACKLOGS[weight]
    async with beside(of_first, partial(send, first)), beside(of_second, partial(send, second)):
        end = time.monotonic() + SHARE_S
        while time.monotonic() < end:
            gaps.append(service(first) - service(second) / weight)
            await asyncio.sleep(0.5)
    print(f"  weights 1:{weight}: {service(first):.0f} : {service(second):.0f} tokens of service", flush=True)  # noqa: T201
    return (max(gaps) - min(gaps)) / _bound()


def _bound() -> float:
    accelerator = _spec().accelerator("cpu")
    batch = _spec().slots("cpu") * (PROMPT_TOKENS + STORY_TOKENS)
    return float(2 * (2 * batch + accelerator.fairness.quantum))


def _spec() -> ModelSpec:
    return read_model_spec((shipped_specs() / f"{MODEL}.yaml").read_bytes())


async def _slot_freed_s(http: aiohttp.ClientSession, stack: Stack, caller: Caller) -> float:
    """Return how long after its client left a wide request still has sequences in the engine, by its own metrics."""
    metrics = f"{await replica_url(stack)}/metrics"
    headers = {"authorization": f"Bearer {stack.replica_bearer}"}

    async def until_running(count: int) -> None:
        running = -1
        while running != count:
            async with http.get(metrics, headers=headers) as answer:
                lines = (await answer.text()).splitlines()
            running = sum(int(float(one.split()[-1])) for one in lines if one.startswith("vllm:num_requests_running"))

    request = asyncio.create_task(complete(http, caller, STORY, 2000, n=16))
    await until_running(16)
    request.cancel()
    left = time.monotonic()
    await until_running(0)
    return time.monotonic() - left


async def _retry_after_error(http: aiohttp.ClientSession, caller: Caller) -> float:
    """Fill an organization's share; return by what part a `retry-after` misses the moment of a free place."""
    flood = [asyncio.create_task(complete(http, caller, f"{number} {STORY}", 64)) for number in range(FLOOD)]
    try:
        await asyncio.sleep(SETTLE_S)
        began = time.monotonic()
        told_s, waited_s = 0.0, 0.0
        # Who is let in gets its token later still, after all that its organization has inside.
        probe = asyncio.create_task(complete(http, caller, STORY, 1))
        while refusal := await _refusal(probe):
            waited_s = time.monotonic() - began
            told_s = told_s or refusal.retry_after_s
            await asyncio.sleep(RETRY_EVERY_S)
            probe = asyncio.create_task(complete(http, caller, STORY, 1))
        probe.cancel()
    finally:
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    print(f"  retry-after: told {told_s:.1f} s, a place was free after {waited_s:.1f} s", flush=True)  # noqa: T201
    assert told_s, "nobody was refused"
    return abs(told_s - waited_s) / waited_s


async def _refusal(probe: "asyncio.Task[Reply]") -> Refused | None:
    """Return why a request was refused; one that hears nothing for a moment is inside."""
    await asyncio.wait({probe}, timeout=REFUSED_WITHIN_S)
    error = probe.exception() if probe.done() else None
    assert error is None or isinstance(error, Refused), error
    return error


def _caller(stack: Stack, slug: str, weight: int = 1) -> Caller:
    organization, client = stack.tenant(slug)
    if weight != 1:
        stack.admin("PATCH", f"/admin/organizations/{organization}", {"weight": weight})
    return Caller(slug, stack.url, MODEL, headers={"authorization": f"Bearer {client.api_key}"})
