"""What one request brings about: refused, failed by the model, overdue or too long, it takes no replica from others."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import openai
import orjson
import pytest
from aiohttp import ClientPayloadError, ClientSession
from openai import AsyncOpenAI
from redis.asyncio import Redis

from support.fakes.gateway_ports import BASE
from support.fakes.model_server import ENGINE_FAILED, Behaviour
from support.gateway_stack import HELLO, KEY, GatewayStack, gateway_stack, until
from tokenyard.core.replica import ENGINE_DEAD
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome

WHOLE: dict[str, object] = {"model": BASE.id, "messages": HELLO}
STREAM = {**WHOLE, "stream": True}
BOTH = pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
REFUSED = {
    "message": "token_id(s) [9] in logit_bias are wrong.",
    "type": "invalid_request_error",
    "param": "logit_bias",
}
BROKEN = Behaviour(status=500, body=orjson.dumps({"error": ENGINE_FAILED}))


@pytest.fixture
async def pair(redis: Redis, tmp_path: Path) -> AsyncIterator[GatewayStack]:
    async with gateway_stack(redis, tmp_path, replicas=2) as stack:
        stack.replicas.listed[1] = msgspec.structs.replace(stack.replicas.listed[1], running=50)
        yield stack


async def _free_of_charge(gateway: GatewayStack) -> None:
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.FAILED, TokenUsage(0, 0))
    await gateway.nothing_is_held()
    assert (await gateway.budget()).pending == 0


async def test_an_error_frame_that_refuses_is_a_refusal(pair: GatewayStack) -> None:
    pair.server.behaviour = Behaviour(error_at=0, error=REFUSED)
    async with AsyncOpenAI(api_key=KEY, base_url=f"{pair.url}/v1", max_retries=2) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model=BASE.id, messages=HELLO, stream=True)
    assert (refused.value.param, refused.value.type) == ("logit_bias", "invalid_request_error")
    assert "logit_bias are wrong" in refused.value.message
    assert [len(server.log) for server in pair.servers] == [1, 0]
    assert pair.replicas.ejected == []
    await _free_of_charge(pair)


async def test_roles_alone_are_not_the_beginning_of_an_answer(gateway: GatewayStack) -> None:
    """vLLM tells them first, also where the engine then fails at the request."""
    gateway.server.behaviour = Behaviour(error_at=0)
    async with ClientSession() as session:
        response = await gateway.post(session, {**STREAM, "n": 3, "temperature": 1})
        assert response.status == 500
    await _free_of_charge(gateway)


async def test_vllms_own_number_in_an_error_frame_counts_too(gateway: GatewayStack) -> None:
    gateway.server.behaviour = Behaviour(error_at=0, error={"message": "top_p is wrong", "code": 400})
    async with ClientSession() as session:
        response = await gateway.post(session, STREAM)
        assert response.status == 400


@BOTH
async def test_what_fails_on_two_replicas_is_the_requests_own_fault(
    pair: GatewayStack, body: dict[str, object]
) -> None:
    for server in pair.servers:
        server.behaviour = Behaviour(error_at=0) if body is STREAM else BROKEN
    async with ClientSession() as session:
        response = await pair.post(session, body)
        answer = await response.json()
    assert (response.status, response.headers["x-should-retry"]) == (500, "false")
    assert answer["error"]["type"] == "server_error"
    assert "EngineCore" not in str(answer)
    assert [len(server.log) for server in pair.servers] == [1, 1]
    assert pair.replicas.ejected == []
    await _free_of_charge(pair)


@BOTH
async def test_what_fails_on_one_replica_is_done_by_another(pair: GatewayStack, body: dict[str, object]) -> None:
    pair.server.behaviour = Behaviour(error_at=0) if body is STREAM else BROKEN
    async with ClientSession() as session:
        response = await pair.post(session, body)
        assert response.status == 200
        assert b"word8" in await response.read()
    assert pair.replicas.ejected == []
    (settled,) = await pair.settled()
    assert settled.claims.attempt.endswith(".2")


@BOTH
async def test_a_failure_leaves_the_only_replica_to_everybody_else(
    gateway: GatewayStack, body: dict[str, object]
) -> None:
    gateway.server.behaviour = Behaviour(error_at=0) if body is STREAM else BROKEN
    async with ClientSession() as session:
        failed = await gateway.post(session, body)
        assert failed.status == 500
        assert "x-should-retry" not in failed.headers, "nobody knows yet whose fault it is"
        gateway.server.behaviour = Behaviour()
        response = await gateway.post(session, WHOLE)
        assert response.status == 200
    assert gateway.replicas.ejected == []


@pytest.mark.parametrize("fault", ["error_at", "end_at"])
async def test_a_stream_that_fails_in_its_middle_costs_what_was_relayed(gateway: GatewayStack, fault: str) -> None:
    gateway.server.behaviour = Behaviour(**{fault: 3})  # type: ignore[arg-type]
    async with ClientSession() as session:
        response = await gateway.post(session, STREAM)
        text = (await response.read()).decode()
    last = text.strip().split("\n\n")[-1]
    assert orjson.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.REPLICA_LOST, TokenUsage(4, 3))
    assert gateway.replicas.ejected == []


async def test_a_refusal_in_the_middle_of_a_stream_is_shown_as_one(gateway: GatewayStack) -> None:
    gateway.server.behaviour = Behaviour(error_at=2, error=REFUSED)
    async with ClientSession() as session:
        text = (await (await gateway.post(session, STREAM)).read()).decode()
    error = orjson.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "logit_bias")
    (settled,) = await gateway.settled()
    assert settled.usage == TokenUsage(4, 2)


@BOTH
async def test_a_replica_that_says_that_its_engine_is_dead_is_lost(pair: GatewayStack, body: dict[str, object]) -> None:
    dead = orjson.dumps({"error": {"message": "", "type": "server_error", "param": None, "code": ENGINE_DEAD}})
    pair.server.behaviour = Behaviour(status=503, body=dead)
    async with ClientSession() as session:
        response = await pair.post(session, body)
        assert response.status == 200
        await response.read()
    assert pair.replicas.ejected == ["replica-0"]


async def test_a_reply_of_any_length_is_relayed_whole_and_charged(gateway: GatewayStack) -> None:
    gateway.server.behaviour = Behaviour(content="é" * 40_000, tokens=20)
    body = {**WHOLE, "n": 90, "max_tokens": 20}  # 144 MB: over all that a gateway could hold for each request
    async with ClientSession(read_bufsize=2**20) as session:
        response = await gateway.post(session, body)
        assert response.status == 200
        size, tail = 0, b""
        async for part in response.content.iter_any():
            size += len(part)
            tail = (tail + part)[-300:]
    assert size == int(response.headers["content-length"]) > 140_000_000
    assert orjson.loads(b"{" + tail[tail.rindex(b'"usage"') :])["usage"]["completion_tokens"] == 1800
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(4, 1800))
    assert gateway.replicas.ejected == []


async def test_a_long_reply_without_usage_is_not_given_away(gateway: GatewayStack) -> None:
    gateway.server.behaviour = Behaviour(content="x" * 1_000_000, tokens=1, tells_usage=False)
    async with ClientSession() as session:
        response = await gateway.post(session, WHOLE)
        with pytest.raises(ClientPayloadError):
            await response.read()
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.CLIENT_LEFT, "the replica's report is what it costs"
    assert gateway.replicas.ejected == []


@pytest.mark.parametrize(
    ("body", "silence_s", "request_s"),
    [(STREAM, 0.3, 60.0), (STREAM, 60.0, 0.3), (WHOLE, 60.0, 0.3)],
    ids=["silent stream", "long stream", "long whole"],
)
async def test_a_reply_that_does_not_come_in_time_takes_no_replica_away(
    gateway: GatewayStack, body: dict[str, object], silence_s: float, request_s: float
) -> None:
    gateway.models.base = msgspec.structs.replace(BASE, max_silence_s=silence_s, max_request_s=request_s)
    gateway.server.behaviour = Behaviour(silent_at=0)
    async with ClientSession() as session:
        response = await gateway.post(session, body)
        answer = await response.json()
    assert (response.status, answer["error"]["code"]) == (504, "timeout")
    assert response.headers.get("x-should-retry") == ("false" if request_s < 1 else None)
    assert gateway.replicas.ejected == []
    await until(lambda: gateway.server.log[0].aborted)
    await _free_of_charge(gateway)


async def test_a_whole_answer_may_be_silent_until_it_is_there(gateway: GatewayStack) -> None:
    gateway.models.base = msgspec.structs.replace(BASE, max_silence_s=0.1)
    gateway.server.behaviour = Behaviour(token_delay_s=0.05)
    async with ClientSession() as session:
        assert (await gateway.post(session, WHOLE)).status == 200


async def test_all_attempts_share_one_time_limit(pair: GatewayStack) -> None:
    pair.models.base = msgspec.structs.replace(BASE, max_request_s=0.3)
    for server in pair.servers:
        server.behaviour = Behaviour(silent_at=0)
    async with ClientSession() as session:
        assert (await pair.post(session, WHOLE)).status == 504
    assert [len(server.log) for server in pair.servers] == [1, 0]


async def test_a_stream_that_goes_silent_costs_what_was_relayed(gateway: GatewayStack) -> None:
    gateway.models.base = msgspec.structs.replace(BASE, max_silence_s=0.3)
    gateway.server.behaviour = Behaviour(silent_at=3)
    async with ClientSession() as session:
        text = (await (await gateway.post(session, STREAM)).read()).decode()
    assert '"code":"timeout"' in text.strip().split("\n\n")[-1]
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.REPLICA_LOST, TokenUsage(4, 3))
    assert gateway.replicas.ejected == []
