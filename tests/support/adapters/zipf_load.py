"""Many adapters asked for as the Zipf law has it, each answer held against what its adapter says alone."""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import uuid4

from support.replica_caller import DATA, ReplicaCaller, chat, claims
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import OrganizationId

QUESTION = "Tell me about the sea."
TOKENS = 6
STRENGTH = 2.0
"""Of random adapters: of the 20 most likely first tokens, two of them have 7 in common at the very most."""
TOP, IN_COMMON = 20, 0.6
"""Where a batch has another shape, bfloat16 moves a few of one adapter's tokens out of its 20 most likely ones."""


@dataclass(frozen=True)
class Step:
    """A token, and those that were the most likely in its place."""

    token: str
    likely: frozenset[str]

    @classmethod
    def of(cls, written: dict[str, Any]) -> "Step":
        return cls(written["token"], frozenset(one["token"] for one in written["top_logprobs"]))


@dataclass(frozen=True)
class AdapterAnswer:
    """What a request got; `resident` says whether its adapter was in memory when it was sent."""

    adapter: AdapterRef
    status: int
    first_s: float
    resident: bool
    steps: tuple[Step, ...]


def agree(one: Sequence[Step], other: Sequence[Step]) -> bool:
    """Tell whether the same adapter said both, as long as they go on from the same tokens."""
    if not one or len(one) != len(other):
        return False
    for left, right in zip(one, other, strict=True):
        if len(left.likely & right.likely) < IN_COMMON * min(len(left.likely), len(right.likely)):
            return False
        # Two were as likely, or both are pieces of characters, which look alike and may be different ones.
        if left.token != right.token or not left.token or "\ufffd" in left.token:
            return True
    return True


async def answer_of(caller: ReplicaCaller, adapter: AdapterRef) -> AdapterAnswer:
    """Stream one answer, each for an organization of its own."""
    organization = OrganizationId(f"org_{uuid4().hex}")
    body = chat(QUESTION, max_tokens=TOKENS, stream=True, ignore_eos=True, logprobs=True, top_logprobs=TOP)
    body |= {"model": adapter.name, "cache_salt": organization}
    resident = adapter.name in (await caller.control.stats(caller.target)).adapters
    began, first_s, steps = time.monotonic(), 0.0, []
    async with caller.send(body, claims(adapter, organization=organization)) as response:
        async for line in response.content:
            if line.startswith(DATA + b"{"):
                for choice in json.loads(line.removeprefix(DATA))["choices"]:
                    steps += [Step.of(one) for one in (choice.get("logprobs") or {}).get("content") or ()]
                first_s = first_s or (time.monotonic() - began if steps else 0.0)
        return AdapterAnswer(adapter, response.status, first_s, resident, tuple(steps))


async def zipf_answers(
    caller: ReplicaCaller, adapters: Sequence[AdapterRef], requests: int, *, at_once: int, seed: int = 1
) -> list[AdapterAnswer]:
    """Ask so often, `at_once` at a time, of which the n-th adapter gets a part of 1/n."""
    weights = [1 / rank for rank in range(1, len(adapters) + 1)]
    asked = iter(random.Random(seed).choices(adapters, weights, k=requests))
    answers: list[AdapterAnswer] = []

    async def keep_asking() -> None:
        for adapter in asked:
            answers.append(await answer_of(caller, adapter))

    await asyncio.gather(*(keep_asking() for _ in range(at_once)))
    return answers


async def wrong_rows(caller: ReplicaCaller, answers: Sequence[AdapterAnswer]) -> list[AdapterAnswer]:
    """Return the answers that are not what their adapter says alone; it is asked again, alone, for that."""
    alone: dict[str, tuple[Step, ...]] = {}
    for answer in answers:
        if answer.adapter.name not in alone:
            alone[answer.adapter.name] = (await answer_of(caller, answer.adapter)).steps
    names = sorted(alone)
    confused = sum(agree(alone[one], alone[other]) for one, other in pairwise(names))
    assert confused <= len(names) / 100, "the adapters must differ, or this shows nothing"
    return [answer for answer in answers if not agree(answer.steps, alone[answer.adapter.name])]
