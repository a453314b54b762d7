"""Replicas that refuse, break or are missing: one more try while nothing was sent, an honest end after that."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import orjson
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI
from redis.asyncio import Redis

from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Behaviour
from support.gateway_stack import HELLO, KEY, GatewayStack, gateway_stack
from tokenyard.core.replica import Replica
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome

WHOLE: dict[str, object] = {"model": BASE.id, "messages": HELLO}
STREAM = {**WHOLE, "stream": True}


@pytest.fixture
async def pair(redis: Redis, tmp_path: Path) -> AsyncIterator[GatewayStack]:
    async with gateway_stack(redis, tmp_path, replicas=2) as stack:
        # The first one is always preferred.
        stack.replicas.listed[1] = _loaded(stack.replicas.listed[1])
        yield stack


def _loaded(replica: Replica) -> Replica:
    return Replica(replica.name, replica.model, replica.url, running=50)


@pytest.mark.parametrize("tokens", [1, 3])
async def test_lost_in_the_middle_of_a_stream(gateway: GatewayStack, tokens: int) -> None:
    gateway.server.behaviour = Behaviour(token_delay_s=0.01, cut_at=tokens)
    async with ClientSession() as session:
        response = await gateway.post(session, STREAM)
        text = (await response.read()).decode()
    events = text.strip().split("\n\n")
    assert len(events) == 1 + tokens + 1
    assert events[-1].startswith('data: {"error":')
    assert "[DONE]" not in text
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.REPLICA_LOST
    assert settled.usage == TokenUsage(4, tokens) == gateway.server.log[0].usage
    assert gateway.replicas.ejected == ["replica-0"]
    await gateway.nothing_is_held()


async def test_the_openai_client_sees_an_error(gateway: GatewayStack) -> None:
    gateway.server.behaviour.cut_at = 2
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=BASE.id, messages=[{"role": "user", "content": "say hello to me"}], stream=True
        )
        with pytest.raises(openai.APIError, match="model server failed"):
            async for _ in stream:
                pass


@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(cut_at=0),
        Behaviour(status=500, body=b"Internal Server Error"),
        Behaviour(status=404, body=b'{"error":{"message":"no such adapter"}}'),
        Behaviour(status=503, body=b"Service Unavailable"),
    ],
    ids=["cut", "500", "404", "503"],
)
async def test_another_replica_takes_over(pair: GatewayStack, behaviour: Behaviour, body: dict[str, object]) -> None:
    pair.servers[0].behaviour = behaviour
    async with ClientSession() as session:
        response = await pair.post(session, body)
        assert response.status == 200
        assert b"word8" in await response.read()
    (settled,) = await pair.settled()
    assert settled.claims.attempt.endswith(".2")
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage == TokenUsage(4, 8)
    assert [sent.claims.attempt[-2:] for server in pair.servers for sent in server.log] == [".1", ".2"]
    assert pair.replicas.ejected == (["replica-0"] if behaviour.cut_at == 0 else [])


async def test_a_whole_answer_that_breaks_off_is_tried_again(pair: GatewayStack) -> None:
    pair.servers[0].behaviour.cut_at = 3
    async with ClientSession() as session:
        response = await pair.post(session, WHOLE)
        assert response.status == 200
    (settled,) = await pair.settled()
    assert settled.claims.attempt.endswith(".2")


async def test_a_refused_connection(pair: GatewayStack) -> None:
    pair.replicas.listed[0] = Replica("replica-gone", BASE.id, "http://127.0.0.1:9")
    async with ClientSession() as session:
        response = await pair.post(session, WHOLE)
        assert response.status == 200
    assert pair.replicas.ejected == ["replica-gone"]


async def test_a_kept_connection_that_went_stale_is_no_lost_replica(gateway: GatewayStack) -> None:
    """What was sent into it may have arrived: the next try is another attempt, on a new connection."""
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    body = orjson.dumps({"choices": [], "usage": usage})
    attempts: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for turn in range(2):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
            attempts.append(head.split("x-request-id: ")[1].split("\r\n")[0][-2:])
            if turn == 0:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, ClientSession() as session:
        port = server.sockets[0].getsockname()[1]
        gateway.replicas.listed[0] = Replica("replica-0", BASE.id, f"http://127.0.0.1:{port}")
        for _ in range(2):
            assert (await gateway.post(session, WHOLE)).status == 200
        assert attempts == [".1", ".1", ".2"]
        assert gateway.replicas.ejected == []
        first, second = await gateway.settled(2)
        assert (first.claims.attempt[-2:], second.claims.attempt[-2:]) == (".1", ".2")


async def test_nothing_listens(gateway: GatewayStack) -> None:
    gateway.replicas.listed[0] = Replica("replica-gone", BASE.id, "http://127.0.0.1:9")
    async with ClientSession() as session:
        response = await gateway.post(session, WHOLE)
        assert response.status == 503
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
async def test_all_replicas_fail(pair: GatewayStack, body: dict[str, object]) -> None:
    for server in pair.servers:
        server.behaviour = Behaviour(cut_at=0)
    async with ClientSession() as session:
        response = await pair.post(session, body)
        answer = await response.json()
    assert response.status == 502
    assert answer["error"]["code"] == "upstream_failed"
    (settled,) = await pair.settled()
    assert settled.outcome is Outcome.FAILED
    await pair.nothing_is_held()
    assert (await pair.budget()).pending == 0


async def test_no_replica(gateway: GatewayStack) -> None:
    gateway.replicas.listed.clear()
    async with ClientSession() as session:
        response = await gateway.post(session, WHOLE)
        assert response.status == 503
        assert int(response.headers["retry-after"]) >= 1
        assert (await response.json())["error"]["code"] == "server_is_overloaded"
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.FAILED


async def test_an_answer_without_usage_is_not_given_away(gateway: GatewayStack) -> None:
    gateway.server.behaviour.tells_usage = False
    async with ClientSession() as session:
        response = await gateway.post(session, WHOLE)
        assert response.status == 500
    assert gateway.replicas.ejected == []


async def test_a_stream_without_usage_is_counted_by_frames(gateway: GatewayStack) -> None:
    gateway.server.behaviour = Behaviour(tells_usage=False)
    async with ClientSession() as session:
        response = await gateway.post(session, STREAM)
        await response.read()
    (settled,) = await gateway.settled()
    assert settled.usage == TokenUsage(0, 8)
