"""Whatever one organization sends, the others are served: random bodies on the real stack, a bystander beside them.

Each case is its seed: `fuzz_case(seed, MODEL)`. `FUZZ_CASES` says how many are sent.
"""

import asyncio
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import httpx
import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from psutil import Process

from support.fuzz.attack import Attack, FuzzAnswer
from support.fuzz.bystander import Bystander
from support.fuzz.cases import fuzz_case
from support.servers.whole_stack import MODEL, Stack, eventually

CASES = int(os.environ.get("FUZZ_CASES", "120"))
ATTACKERS = 6
ALONE = 20
# Asked of two processors on which a bystander alone waits 0.1 s at most; slower ones may take so many times longer.
LONGEST_WAIT_S = 2.5
TIMES_ALONE = 25
pytestmark = pytest.mark.timeout(1_800)


@dataclass(frozen=True)
class Fuzzed:
    """What came of it: the attackers' answers, and the bystander alone and beside them."""

    answers: Sequence[FuzzAnswer]
    alone: Bystander
    beside: Bystander
    replicas_before: Sequence[Process]
    replicas_after: Sequence[Process]


@pytest.fixture(scope="module")
def fuzzed(stack: Stack) -> Fuzzed:
    return asyncio.run(_fuzz(stack))


async def _fuzz(stack: Stack) -> Fuzzed:
    attacker, bystander = stack.tenant("fuzz-attacker")[1].api_key, stack.tenant("fuzz-bystander")[1].api_key
    before = stack.replicas()
    # Shorter than the gateway keeps an idle connection: one that it is just closing is not a finding.
    connector = TCPConnector(limit=0, keepalive_timeout=2)
    async with ClientSession(timeout=ClientTimeout(None), connector=connector) as http:
        alone, beside = (Bystander(http, stack.url, bystander, MODEL) for _ in range(2))
        await alone.run(ALONE)
        attack = Attack(http, stack.url, attacker, (fuzz_case(seed, MODEL) for seed in itertools.count()))
        over = asyncio.Event()
        watching = asyncio.create_task(beside.run_until(over))
        await attack.run(ATTACKERS, CASES)
        over.set()
        await watching
    return Fuzzed(attack.answers, alone, beside, before, stack.replicas())


def test_every_answer_is_one_that_is_ours_to_give(fuzzed: Fuzzed) -> None:
    assert len(fuzzed.answers) == CASES
    assert [str(answer) for answer in fuzzed.answers if answer.problem] == []


def test_the_bystander_sees_no_error(fuzzed: Fuzzed) -> None:
    assert fuzzed.alone.errors == []
    assert fuzzed.beside.errors == []
    assert fuzzed.beside.waits


def test_the_bystander_never_waits_long(fuzzed: Fuzzed) -> None:
    bound_s = max(LONGEST_WAIT_S, TIMES_ALONE * median(fuzzed.alone.waits))
    assert max(fuzzed.beside.waits) <= bound_s, sorted(fuzzed.beside.waits)[-5:]
    assert max(fuzzed.beside.silences) <= bound_s, sorted(fuzzed.beside.silences)[-5:]


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
