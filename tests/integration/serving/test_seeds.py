"""A seed on the real engine, with a prompt that is read in several steps."""

import asyncio
from typing import Any

from support.replica_caller import ReplicaCaller, chat, claims, engines

LONG = "count the rivers " * 150  # more tokens than the replica's step has


async def _said(caller: ReplicaCaller, seed: int) -> Any:
    answer = await caller.ask(chat(LONG, max_tokens=12) | {"seed": seed, "temperature": 1}, claims())
    return answer["choices"][0]["message"]["content"]


async def test_the_engine_lives_on(caller: ReplicaCaller) -> None:
    before = engines(caller.cluster.processes())
    assert all(await asyncio.gather(*(_said(caller, seed) for seed in range(3))))
    assert engines(caller.cluster.processes()) == before
