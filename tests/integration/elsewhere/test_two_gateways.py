"""One Tokenyard sells what another one hosts: the seller's tenant is charged what the seller itself is charged."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI
from redis.asyncio import Redis

from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Behaviour
from support.gateway_stack import HELLO, KEY, OTHER, OTHER_KEY, SALT_SECRET, GatewayStack, gateway_stack, until
from tokenyard.clients.server_elsewhere import ElsewhereClient
from tokenyard.core.model_files.sources import ServerSource
from tokenyard.gateway.elsewhere.server_relay import ServerRelay
from tokenyard.metering.events import Outcome

SOLD = "resold"


@asynccontextmanager
async def _both(redis: Redis, folder: Path) -> AsyncIterator[tuple[GatewayStack, GatewayStack]]:
    """Yield seller and host; to the host, the seller is the other organization."""
    async with (
        gateway_stack(redis, folder / "host") as host,
        ElsewhereClient() as client,
        gateway_stack(
            redis, folder / "seller", elsewhere=ServerRelay(client, {SOLD: OTHER_KEY}, user_secret=SALT_SECRET)
        ) as seller,
    ):
        server = ServerSource(url=f"{host.url}/v1", model=BASE.id)
        seller.models.base = msgspec.structs.replace(BASE, id=SOLD, server=server, max_lora_rank=0)
        yield seller, host


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("choices", [1, 3])
async def test_both_count_the_same(redis: Redis, tmp_path: Path, stream: bool, choices: int) -> None:
    async with _both(redis, tmp_path) as (seller, host):
        host.server.behaviour = Behaviour(tokens=9, cached_tokens=2)
        async with AsyncOpenAI(api_key=KEY, base_url=f"{seller.url}/v1", max_retries=0) as client:
            if stream:
                models = set()
                async for chunk in await client.chat.completions.create(
                    model=SOLD, messages=HELLO, n=choices, stream=True
                ):
                    models.add(chunk.model)
                assert models == {SOLD}
            else:
                reply = await client.chat.completions.create(model=SOLD, messages=HELLO, n=choices)
                assert reply.model == SOLD
        (sold,) = await seller.settled()
        (bought,) = await host.settled(1, OTHER)
        assert sold.outcome is bought.outcome is Outcome.COMPLETED
        assert sold.usage == bought.usage
        assert sold.usage.completion_tokens == 9 * choices


async def test_a_client_that_leaves_ends_it_at_the_host_too(redis: Redis, tmp_path: Path) -> None:
    async with _both(redis, tmp_path) as (seller, host), ClientSession() as session:
        host.server.behaviour = Behaviour(tokens=500, token_delay_s=0.01)
        response = await seller.post(session, {"model": SOLD, "messages": HELLO, "stream": True, "max_tokens": 500})
        while b"word3 " not in await response.content.readline():
            pass
        response.close()
        (sold,) = await seller.settled()
        await until(lambda: host.server.log[0].aborted)
        (bought,) = await host.settled(1, OTHER)
    assert (sold.outcome, bought.outcome) == (Outcome.LEFT_ELSEWHERE, Outcome.CLIENT_LEFT)
    assert sold.usage.completion_tokens >= 3


async def test_the_hosts_limits_are_not_the_tenants(redis: Redis, tmp_path: Path) -> None:
    """A seller without credit at its host has no server: its tenant is told to come back, and pays nothing."""
    async with _both(redis, tmp_path) as (seller, host), ClientSession() as session:
        seller_key = host.keys.tenants.pop(OTHER_KEY)
        response = await seller.post(session, {"model": SOLD, "messages": HELLO})
        text = await response.text()
        host.keys.tenants[OTHER_KEY] = seller_key
    assert response.status == 503
    assert OTHER_KEY not in text
    assert "API key" not in text
