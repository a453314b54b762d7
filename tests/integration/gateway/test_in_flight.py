"""One organization's requests under way, uploads among them, take no place that another one needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientResponse, ClientSession
from redis.asyncio import Redis

from support.fakes.gateway_ports import BASE
from support.gateway_stack import CHAT, HELLO, KEY, OTHER_KEY, GatewayStack, gateway_stack, until
from tokenyard.gateway.path.in_flight import InFlightBounds

ASK = {"model": BASE.id, "messages": HELLO}


@pytest.fixture
async def gateway(redis: Redis, tmp_path: Path) -> AsyncIterator[GatewayStack]:
    bounds = InFlightBounds(requests=100, requests_of_one=3, bytes=20_000, bytes_of_one=10_000)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as stack:
        yield stack


@asynccontextmanager
async def upload(gateway: GatewayStack, size: int | None, key: str = KEY) -> AsyncIterator[None]:
    """Begin a request whose body does not come; without a size it says that it comes in chunks."""
    length = "transfer-encoding: chunked" if size is None else f"content-length: {size}"
    parts = urlsplit(gateway.url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    under_way = gateway.registry.get_sample_value("tokenyard_requests_in_flight") or 0
    writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n{length}\r\n\r\n".encode())
    try:
        await until(lambda: gateway.registry.get_sample_value("tokenyard_requests_in_flight") == under_way + 1)
        yield
    finally:
        writer.close()
        await writer.wait_closed()


async def ask(gateway: GatewayStack, session: ClientSession, key: str = KEY) -> ClientResponse:
    headers = {"authorization": f"Bearer {key}"}
    async with session.post(gateway.url + CHAT, json=ASK, headers=headers) as response:
        await response.read()
        return response


async def test_uploads_count_and_only_for_their_organization(gateway: GatewayStack) -> None:
    async with ClientSession() as session:
        async with upload(gateway, 10), upload(gateway, 10):
            async with upload(gateway, 10):
                refused = await ask(gateway, session)
                assert (refused.status, refused.headers["retry-after"]) == (429, "1")
                assert (await refused.json())["error"]["code"] == "rate_limit_exceeded"
                assert (await ask(gateway, session, OTHER_KEY)).status == 200
            await until(lambda: gateway.registry.get_sample_value("tokenyard_requests_in_flight") == 2)
            assert (await ask(gateway, session)).status == 200
        assert len(gateway.server.log) == 2
        await until(lambda: not gateway.app._inference._places.organizations)


async def test_so_do_their_bytes_before_they_come(gateway: GatewayStack) -> None:
    async with ClientSession() as session, upload(gateway, 9_950):
        assert (await ask(gateway, session)).status == 429
        async with upload(gateway, 9_950, OTHER_KEY):
            assert (await ask(gateway, session, OTHER_KEY)).status == 429


async def test_all_bodies_together_are_bounded(redis: Redis, tmp_path: Path) -> None:
    bounds = InFlightBounds(bytes=10_000, bytes_of_one=10_000)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as gateway, ClientSession() as session:
        async with upload(gateway, 9_950):
            refused = await ask(gateway, session, OTHER_KEY)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        await until(lambda: gateway.registry.get_sample_value("tokenyard_requests_in_flight") == 0)
        assert (await ask(gateway, session, OTHER_KEY)).status == 200


async def test_a_body_that_does_not_say_its_length_counts_as_the_longest_until_it_has_come(
    redis: Redis, tmp_path: Path
) -> None:
    """The stand takes bodies of up to 100,000 bytes."""
    bounds = InFlightBounds(bytes=150_000, bytes_of_one=150_000)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as gateway, ClientSession() as session:
        async with upload(gateway, None), upload(gateway, 49_950):
            assert (await ask(gateway, session)).status == 429
        gateway.server.behaviour.token_delay_s = 0.02
        async with upload(gateway, 49_900):

            async def chunks() -> AsyncIterator[bytes]:
                yield b'{"model": "test-model", "stream": true, "messages": [{"role": "user", "content": "say hello"}]}'

            headers = {"authorization": f"Bearer {KEY}"}
            async with session.post(gateway.url + CHAT, data=chunks(), headers=headers) as response:
                assert response.status == 200
                assert (await ask(gateway, session)).status == 200, "the body has come, and was short"
                await response.read()
