"""The scheduler inside a real engine: whose requests they are and what they weigh comes from the meter header."""

import asyncio

import msgspec
import pytest

pytest.importorskip("vllm")

from support.replica_caller import ReplicaCaller, chat, claims
from tokenyard.core.ids import OrganizationId
from tokenyard.core.usage import MeterClaims

FLOOD, SMALL = OrganizationId("org_flood"), OrganizationId("org_small")
LENGTH = 100  # tokens of each answer that fills a slot
SHOWN_WITHIN_S = 30.0
WAITED = 'tokenyard_engine_time_to_first_token_seconds_count{weight="7"}'


def weighed(organization: OrganizationId, weight: int) -> MeterClaims:
    return msgspec.structs.replace(claims(organization=organization), weight=weight)


async def _running(caller: ReplicaCaller) -> str:
    lines = (await caller.get("/metrics"))[1].splitlines()
    return next((one for one in lines if one.startswith("vllm:num_requests_running{")), "")


async def test_a_newcomer_is_answered_while_another_fills_every_slot(caller: ReplicaCaller) -> None:
    body = chat("Count from one to a thousand, in words.", max_tokens=LENGTH, logit_bias={"2": -100})
    flood = [asyncio.create_task(caller.stream(body, weighed(FLOOD, 1))) for _ in range(3)]
    while not (await _running(caller)).endswith(" 3.0"):  # noqa: ASYNC110 - the engine tells nobody
        await asyncio.sleep(0.1)
    await caller.stream(chat("Hello", max_tokens=2), weighed(SMALL, 7))
    assert not any(one.done() for one in flood)
    async with asyncio.timeout(SHOWN_WITHIN_S):
        while f"{WAITED} 1.0" not in (metrics := (await caller.get("/metrics"))[1]):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert 'tokenyard_running_tokens{weight="1"}' in metrics
    assert "tokenyard_fairness_gap_tokens" in metrics
    assert "org_" not in "".join(line for line in metrics.splitlines() if line.startswith("tokenyard_"))
    for answer in await asyncio.gather(*flood):
        assert sum(len(event["choices"]) for event in answer) >= LENGTH
