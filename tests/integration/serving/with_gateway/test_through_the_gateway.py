"""Requests of one tenant that a real engine refuses, fails at, or answers at great length, through a gateway."""

import orjson
import pytest
from aiohttp import ClientSession

from support.gateway_stack import GatewayStack
from support.replica_caller import MODEL, ReplicaCaller
from tokenyard.metering.events import Outcome

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio]

ASKED: dict[str, object] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell me about the sea."}],
    "max_tokens": 8,
}
HARD = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,5000}$"}}, "required": ["a"]}


async def _is_well(gateway: GatewayStack, session: ClientSession) -> None:
    assert gateway.replicas.ejected == []
    response = await gateway.post(session, ASKED)
    answer = await response.read()
    assert response.status == 200, answer


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bias_outside_the_vocabulary_is_refused(gateway: GatewayStack, stream: bool) -> None:
    async with ClientSession() as session:
        response = await gateway.post(session, {**ASKED, "stream": stream, "logit_bias": {"999999999": 1}})
        error = (await response.json())["error"]
        assert (response.status, error["param"], error["type"]) == (400, "logit_bias", "invalid_request_error")
        (settled,) = await gateway.settled()
        assert settled.outcome is Outcome.FAILED
        await _is_well(gateway, session)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hard_grammar_is_followed_or_refused_and_hurts_nobody_else(gateway: GatewayStack, stream: bool) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "s", "schema": HARD}}
    async with ClientSession() as session:
        response = await gateway.post(session, {**ASKED, "stream": stream, "response_format": shape})
        answer = await response.read()
        assert response.status in {200, 400}, answer
        (settled,) = await gateway.settled()
        assert settled.outcome is (Outcome.COMPLETED if response.status == 200 else Outcome.FAILED)
        await _is_well(gateway, session)


async def test_a_long_reply_is_charged_as_the_engine_counts_it(gateway: GatewayStack, caller: ReplicaCaller) -> None:
    wide = {**ASKED, "n": 4, "max_tokens": 100, "temperature": 1.5, "logprobs": True, "top_logprobs": 20}
    async with ClientSession() as session:
        response = await gateway.post(session, wide)
        body = await response.read()
    assert len(body) > 256 * 1024
    usage = orjson.loads(body)["usage"]
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage.prompt_tokens == usage["prompt_tokens"]
    assert settled.usage.completion_tokens == usage["completion_tokens"] > 200
    assert (await caller.report(settled.claims.attempt)).usage.completion_tokens == usage["completion_tokens"]
