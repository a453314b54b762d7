"""Whatever one organization sends, the others are served: random bodies on the real stack, a bystander beside them.

Each case is its seed: `fuzz_case(seed, MODEL)`. `FUZZ_CASES` says how many are sent.
"""

import asyncio
import json
import os
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import httpx
import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from psutil import Process

from support.fuzz.attack import Attack, FuzzAnswer
from support.fuzz.bystander import Bystander
from support.fuzz.cases import FuzzCase, fuzz_case
from support.fuzz.slow_schemas import chat_format, minutes_of_work
from support.servers.whole_stack import MODEL, Stack, eventually
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, Endpoint

CASES = int(os.environ.get("FUZZ_CASES", "60"))
ATTACKERS = 6
ALONE = 20
# Asked of two processors on which a bystander alone waits 0.1 s at most; slower ones may take so many times longer.
LONGEST_WAIT_S = 2.5
TIMES_ALONE = 25
pytestmark = pytest.mark.timeout(1_800)

Result = TypeVar("Result")


def _large(endpoint: Endpoint, **body: object) -> FuzzCase:
    return FuzzCase(-1, endpoint.path, json.dumps({"model": MODEL, **body}).encode(), patience_s=20)


_COUNT = [{"role": "user", "content": "Count as far as you can."}]
LARGE = {
    "sequences": _large(COMPLETIONS, prompt=["hi"] * 128, n=128, max_tokens=4),
    "reply": _large(CHAT, messages=_COUNT, n=16, max_tokens=200, logprobs=True, top_logprobs=20, temperature=1),
    "prompt": _large(CHAT, messages=[{"role": "user", "content": "sea " * 7_500}], max_tokens=4),
    "schema": _large(CHAT, messages=_COUNT, **chat_format(minutes_of_work(9))),
}


@dataclass(frozen=True)
class Fuzzed:
    """What came of it: the attackers' answers, and the bystander alone and beside them."""

    answers: Sequence[FuzzAnswer]
    alone: Bystander
    beside: Bystander
    replicas_before: Sequence[Process]
    replicas_after: Sequence[Process]


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run in a thread: the browser tests keep a loop running in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, work).result()


@pytest.fixture(scope="module")
def fuzzed(stack: Stack) -> Fuzzed:
    return _run(_fuzz(stack))


async def _fuzz(stack: Stack) -> Fuzzed:
    before = stack.replicas()
    async with _http() as http:
        alone = Bystander(http, stack.url, stack.tenant("fuzz-alone")[1].api_key, MODEL)
        await alone.run(ALONE)
    cases = (fuzz_case(seed, MODEL) for seed in range(CASES))
    answers, beside = await _attacked(stack, "fuzz", cases)
    return Fuzzed(answers, alone, beside, before, stack.replicas())


async def _attacked(stack: Stack, name: str, cases: Iterable[FuzzCase]) -> tuple[Sequence[FuzzAnswer], Bystander]:
    """Send the cases from one new organization, beside a new bystander."""
    attacker, bystander = (stack.tenant(f"{name}-{role}")[1].api_key for role in ("attacker", "bystander"))
    async with _http() as http:
        attack = Attack(http, stack.url, attacker, iter(cases))
        beside = Bystander(http, stack.url, bystander, MODEL)
        over = asyncio.Event()
        watching = asyncio.create_task(beside.run_until(over))
        await attack.run(ATTACKERS)
        over.set()
        await watching
    return attack.answers, beside


def _http() -> ClientSession:
    # Shorter than the gateway keeps an idle connection: one that it is just closing is not a finding.
    return ClientSession(timeout=ClientTimeout(None), connector=TCPConnector(limit=0, keepalive_timeout=2))


def test_every_answer_is_one_that_is_ours_to_give(fuzzed: Fuzzed) -> None:
    assert len(fuzzed.answers) == CASES
    assert [str(answer) for answer in fuzzed.answers if answer.problem] == []


def test_the_bystander_sees_no_error(fuzzed: Fuzzed) -> None:
    assert fuzzed.alone.errors == []
    assert fuzzed.beside.errors == []
    assert fuzzed.beside.waits


def test_the_bystander_never_waits_long(fuzzed: Fuzzed) -> None:
    _not_long(fuzzed.beside, fuzzed.alone)


@pytest.mark.parametrize("name", LARGE)
def test_beside_one_large_request(stack: Stack, fuzzed: Fuzzed, name: str) -> None:
    (answer,), beside = _run(_attacked(stack, name, [LARGE[name]]))
    assert answer.problem is None
    assert beside.errors == []
    _not_long(beside, fuzzed.alone)


def _not_long(beside: Bystander, alone: Bystander) -> None:
    bound_s = max(LONGEST_WAIT_S, TIMES_ALONE * median(alone.waits))
    for seconds in (beside.waits, beside.silences):
        assert max(seconds) <= bound_s, sorted(seconds)[-5:]


def test_the_replica_lives_on(fuzzed: Fuzzed) -> None:
    assert fuzzed.replicas_after == fuzzed.replicas_before


def test_nothing_is_charged_for_what_was_refused(stack: Stack, fuzzed: Fuzzed) -> None:
    eventually(lambda: stack.command("reconcile", "--json").returncode == 0, limit_s=90)
    refused = [answer for answer in fuzzed.answers if answer.refused]
    assert len(refused) > CASES // 10
    headers = {"authorization": f"Bearer {stack.admin_key}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=30) as admin:
        charged = [(answer, _cost(admin, answer.request)) for answer in refused if answer.request]
    assert [f"{cost} nano-dollars: {answer}" for answer, cost in charged if cost] == []


def _cost(admin: httpx.Client, request: str) -> int:
    found = admin.get(f"/admin/requests/{request}")
    if found.status_code == 404:
        return 0
    charge = found.json()["charge"]
    return 0 if charge is None else int(charge["amount"])
