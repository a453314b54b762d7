"""Clients that leave or stop reading: billed for what was produced, and nothing goes on for them."""

from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout
from redis.asyncio import Redis

from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, GatewayStack, gateway_stack, until
from tokenyard.metering.events import Outcome

SHORT = ClientTimeout(total=0.3)


async def _read_frames(session: ClientSession, gateway: GatewayStack, number: int) -> None:
    """Start a stream, take the role and `number` tokens, and leave."""
    response = await gateway.post(session, {"model": BASE.id, "messages": HELLO, "stream": True, "max_tokens": 500})
    assert response.status == 200
    seen = 0
    while seen < 1 + number:
        line = await response.content.readline()
        seen += line.startswith(b"data: ")
    response.close()


@pytest.mark.parametrize("frames", [1, 2, 7])
async def test_leaving_in_a_stream(gateway: GatewayStack, frames: int) -> None:
    behaviour = gateway.server.behaviour
    behaviour.tokens, behaviour.token_delay_s = 500, 0.01
    async with ClientSession() as session:
        await _read_frames(session, gateway, frames)
        (settled,) = await gateway.settled()
        await until(lambda: gateway.server.log[0].aborted)
    sent = gateway.server.log[0]
    assert settled.outcome is Outcome.CLIENT_LEFT
    assert frames <= settled.usage.completion_tokens <= sent.completion_tokens < 100
    assert settled.usage.prompt_tokens == sent.prompt_tokens
    await gateway.nothing_is_held()


async def test_leaving_before_the_first_token(gateway: GatewayStack) -> None:
    gateway.server.behaviour.token_delay_s = 30
    async with ClientSession() as session:
        with pytest.raises(TimeoutError):
            await session.post(
                f"{gateway.url}/v1/chat/completions",
                json={"model": BASE.id, "messages": HELLO, "stream": True},
                headers={"authorization": "Bearer ty-test"},
                timeout=SHORT,
            )
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.CLIENT_LEFT
    assert settled.usage.total_tokens == 0
    await until(lambda: gateway.server.log[0].aborted)


async def test_leaving_while_a_whole_answer_is_made(gateway: GatewayStack) -> None:
    """Nobody here knows what was used, so all that was held stays taken until the ledger has decided."""
    gateway.server.behaviour.token_delay_s = 30
    gateway.limit(tokens_per_minute=1_000)
    async with ClientSession() as session:
        with pytest.raises(TimeoutError):
            await session.post(
                f"{gateway.url}/v1/chat/completions",
                json={"model": BASE.id, "messages": HELLO, "max_tokens": 900},
                headers={"authorization": "Bearer ty-test"},
                timeout=SHORT,
            )
        (settled,) = await gateway.settled()
        assert settled.outcome is Outcome.CLIENT_LEFT
        await until(lambda: gateway.server.log[0].aborted)
        await gateway.nothing_is_held()
        figures = await gateway.budget()
        assert figures.held == 0
        assert figures.pending >= 900 * 1_000, "at the rate of the test model"
        refused = await gateway.post(session, {"model": BASE.id, "messages": HELLO, "max_tokens": 200})
        assert refused.status == 429
        assert "tokens per min" in await refused.text()


async def test_a_client_that_stops_reading_is_cut(redis: Redis, tmp_path: Path) -> None:
    async with (
        gateway_stack(redis, tmp_path, stalled_s=0.5) as gateway,
        ClientSession(read_bufsize=1024) as session,
    ):
        behaviour = gateway.server.behaviour
        behaviour.tokens, behaviour.content = 2000, "x" * 32_000
        response = await gateway.post(
            session, {"model": BASE.id, "messages": HELLO, "stream": True, "max_tokens": 2000}
        )
        (settled,) = await gateway.settled()
        response.close()
        assert settled.outcome is Outcome.CLIENT_LEFT
        await until(lambda: gateway.server.log[0].aborted)
        # Sockets and buffers between the model server and the client hold a bounded part of 64 MB.
        assert gateway.server.log[0].completion_tokens < 1000
