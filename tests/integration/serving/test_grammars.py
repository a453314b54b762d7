"""Schemas on the real engine: what they may cost, and whom."""

import asyncio
import json
import re

import msgspec
import pytest

from support.fuzz.schemas import Schema
from support.fuzz.slow_schemas import UNCLOSED_RECURSION, chat_format, minutes_of_work, pattern
from support.replica_caller import ReplicaCaller, chat, claims, engines
from tokenyard.core.ids import OrganizationId
from tokenyard.core.usage import MeterClaims


def _of(organization: str) -> MeterClaims:
    return msgspec.structs.replace(claims(), organization=OrganizationId(organization))


async def _asked(caller: ReplicaCaller, schema: Schema, of: MeterClaims) -> tuple[int, dict[str, object]]:
    async with caller.send(chat("hello", max_tokens=2, **chat_format(schema)), of) as response:
        return response.status, await response.json()


async def test_a_schema_that_kills_its_compiler(caller: ReplicaCaller) -> None:
    before = engines(caller.cluster.processes())
    status, answer = await _asked(caller, pattern(UNCLOSED_RECURSION), claims())
    assert status == 400
    message = "Invalid schema: it cannot be compiled."
    shown = {"message": message, "type": "invalid_request_error", "param": "response_format", "code": None}
    assert answer == {"error": shown}
    await caller.ask(chat("hello"), claims())
    assert engines(caller.cluster.processes()) == before


async def test_streamed_it_is_an_error_before_any_token(caller: ReplicaCaller) -> None:
    events = await caller.stream(chat("hello", **chat_format(pattern("[a"))), claims())
    assert [event["error"]["type"] for event in events] == ["invalid_request_error"]


async def test_the_replica_answers_while_a_schema_is_tried(caller: ReplicaCaller) -> None:
    slow = asyncio.create_task(_asked(caller, minutes_of_work(5), claims()))
    answered = 0
    while not slow.done():
        await caller.control.stats(caller.target)
        answered += 1
    status, _ = await slow
    assert status in (400, 503)  # on a busy machine its time to wait may be over first
    assert answered > 20


async def test_an_organizations_schemas_wait_for_each_other_alone(caller: ReplicaCaller) -> None:
    noisy = [asyncio.create_task(_asked(caller, minutes_of_work(6 + at), _of("org_noisy"))) for at in range(4)]
    await asyncio.sleep(0.2)
    status, _ = await _asked(caller, pattern("^quiet$"), _of("org_quiet"))
    assert status == 200
    assert sum(task.done() for task in noisy) <= 2
    await asyncio.gather(*noisy)


@pytest.mark.parametrize("times", [200, 1000])
async def test_a_class_repeated_often_is_followed(caller: ReplicaCaller, times: int) -> None:
    expression = f"^[a-z]{{1,{times}}}$"
    answer = await caller.ask(chat("Say a word.", max_tokens=60, **chat_format(pattern(expression))), claims())
    choice = answer["choices"][0]
    if choice["finish_reason"] == "stop":
        assert re.fullmatch(expression, json.loads(choice["message"]["content"])["a"])
    else:
        assert re.match(r'\s*\{\s*"a"\s*:\s*"[a-z]+', choice["message"]["content"])
