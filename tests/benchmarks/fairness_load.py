"""Loads for the fairness benchmark: what a client sends, when its first token came, how many it got."""

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

PAUSE_S = 0.2
ENDS = ("0", "2")  # the ids of the model's tokens that end a text
SETTLE_S = 4.0  # until a load has filled what it is to fill


@dataclass(frozen=True)
class Caller:
    """Who sends: through a gateway by `headers`, straight to an engine by `salt`, which there tells tenants apart."""

    name: str
    url: str
    model: str
    headers: dict[str, str] = field(default_factory=dict)
    salt: str | None = None


@dataclass
class Reply:
    """`first_s` is None where nothing came; `tokens` are those that came."""

    first_s: float | None = None
    tokens: int = 0


class Refused(Exception):
    """The status was not 200."""

    def __init__(self, status: int, retry_after_s: float) -> None:
        super().__init__(f"{status}, retry after {retry_after_s} s")
        self.status = status
        self.retry_after_s = retry_after_s


async def complete(
    http: aiohttp.ClientSession,
    caller: Caller,
    prompt: str | list[int],
    tokens: int,
    *,
    n: int = 1,
    reply: Reply | None = None,
) -> Reply:
    """Stream a completion of exactly `tokens` tokens (the end of the text is no end); count each as it comes."""
    reply = reply or Reply()
    body: dict[str, object] = {"model": caller.model, "prompt": prompt, "max_tokens": tokens, "n": n, "stream": True}
    body |= {"temperature": 1, "logit_bias": dict.fromkeys(ENDS, -100)}
    if caller.salt is not None:
        body["cache_salt"] = caller.salt
    began = time.monotonic()
    async with http.post(f"{caller.url}/v1/completions", json=body, headers=caller.headers) as answer:
        if answer.status != 200:
            await answer.read()
            raise Refused(answer.status, float(answer.headers.get("retry-after", 0)))
        async for line in answer.content:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                assert "error" not in event, event
                if event["choices"]:
                    reply.first_s = reply.first_s or time.monotonic() - began
                    reply.tokens += 1
    return reply


def digits(count: int, seed: int) -> str:
    """Return a text of about twice as many tokens."""
    chosen = random.Random(seed)
    return " ".join(str(chosen.randint(0, 9)) for _ in range(count))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def victim(http: aiohttp.ClientSession, caller: Caller, seconds: float) -> list[float]:
    """Return the times to the first token of one short request after another."""
    waits: list[float] = []
    end = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() >= end:
            return waits
        # What comes after the first token is of no interest here, and takes the time for more samples.
        reply = await complete(http, caller, f"{digits(3, number)} What is {number} and {number + 7} together?", 4)
        assert reply.first_s is not None
        waits.append(reply.first_s)
        await asyncio.sleep(PAUSE_S)
    raise AssertionError


@asynccontextmanager
async def beside(streams: int, send: Callable[[int], Awaitable[object]]) -> AsyncIterator[None]:
    """Keep `streams` requests under way, each followed by the next; `send` gets a number of its own."""
    numbers = itertools.count()

    async def keep_on() -> None:
        while True:
            await send(next(numbers))

    tasks = [asyncio.create_task(keep_on()) for _ in range(streams)]
    try:
        await asyncio.sleep(SETTLE_S)
        yield
        for task in tasks:
            if task.done():
                task.result()  # a load that ended has failed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
