"""One organization's requests under way, uploads among them, take no place that another one needs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientResponse, ClientSession
from redis.asyncio import Redis

from support.fakes.admission_requests import principal
from support.fakes.gateway_ports import BASE
from support.gateway_stack import CHAT, HELLO, KEY, OTHER_KEY, WALLET_NANO, GatewayStack, gateway_stack, until
from tokenyard.core.budgets import wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.gateway.path.in_flight import InFlightBounds

ASK = {"model": BASE.id, "messages": HELLO}


@pytest.fixture
async def gateway(redis: Redis, tmp_path: Path) -> AsyncIterator[GatewayStack]:
    bounds = InFlightBounds(requests=100, requests_of_one=3, bytes=20_000, bytes_of_one=10_000)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as stack:
        yield stack


@asynccontextmanager
async def upload(gateway: GatewayStack, size: int = 0, key: str = KEY) -> AsyncIterator[None]:
    """Begin a request whose body does not end, and send that many bytes of it."""
    parts = urlsplit(gateway.url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    under_way, came = _requests(gateway), _bytes(gateway)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    if size:
        writer.write(f"{size:x}\r\n".encode() + b" " * size + b"\r\n")
    try:
        await until(lambda: (_requests(gateway), _bytes(gateway)) == (under_way + 1, came + size))
        yield
    finally:
        writer.close()
        await writer.wait_closed()


def _new_tenant(gateway: GatewayStack, organization: str) -> str:
    """Return the key of another organization."""
    key = f"ty-{organization}"
    gateway.keys.tenants[key] = principal(organization_id=OrganizationId(organization))
    gateway.budgets.set(wallet(OrganizationId(organization)), WALLET_NANO)
    return key


def _requests(gateway: GatewayStack) -> float:
    return gateway.registry.get_sample_value("tokenyard_requests_in_flight") or 0


def _bytes(gateway: GatewayStack) -> int:
    return gateway.app._inference._places.bytes


async def ask(gateway: GatewayStack, session: ClientSession, key: str = KEY) -> ClientResponse:
    headers = {"authorization": f"Bearer {key}"}
    async with session.post(gateway.url + CHAT, json=ASK, headers=headers) as response:
        await response.read()
        return response


def chunked(text: str) -> AsyncIterator[bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"model": "test-model", "stream": true, "messages": '
        await asyncio.sleep(0.01)
        yield json.dumps([{"role": "user", "content": text}]).encode() + b"}"

    return chunks()


async def test_uploads_count_and_only_for_their_organization(gateway: GatewayStack) -> None:
    async with ClientSession() as session:
        async with upload(gateway), upload(gateway):
            async with upload(gateway):
                refused = await ask(gateway, session)
                assert (refused.status, refused.headers["retry-after"]) == (429, "1")
                assert (await refused.json())["error"]["code"] == "rate_limit_exceeded"
                assert (await ask(gateway, session, OTHER_KEY)).status == 200
            await until(lambda: _requests(gateway) == 2)
            assert (await ask(gateway, session)).status == 200
        assert len(gateway.server.log) == 2
        await until(lambda: not gateway.app._inference._places.organizations)


async def test_so_do_their_bytes(gateway: GatewayStack) -> None:
    async with ClientSession() as session, upload(gateway, 9_950):
        refused = await ask(gateway, session)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        async with upload(gateway, 9_950, OTHER_KEY):
            assert (await ask(gateway, session, OTHER_KEY)).status == 429
    await until(lambda: _bytes(gateway) == 0)


async def test_all_bodies_together_are_bounded(redis: Redis, tmp_path: Path) -> None:
    bounds = InFlightBounds(bytes=10_000, bytes_of_one=10_000)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as gateway, ClientSession() as session:
        async with upload(gateway, 9_950):
            refused = await ask(gateway, session, OTHER_KEY)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        await until(lambda: _requests(gateway) == 0)
        assert (await ask(gateway, session, OTHER_KEY)).status == 200


async def test_what_was_announced_and_did_not_come_shuts_nobody_out(redis: Redis, tmp_path: Path) -> None:
    """The stand takes bodies of up to 100,000 bytes."""
    bounds = InFlightBounds(bytes=400_000, bytes_of_one=100_000)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as gateway, ClientSession() as session:
        tenants = [_new_tenant(gateway, f"org_{number}") for number in range(4)]
        async with AsyncExitStack() as stack:
            for key in tenants:
                await stack.enter_async_context(upload(gateway, key=key))
            for key in (*tenants, OTHER_KEY):
                assert (await ask(gateway, session, key)).status == 200


async def test_many_uploads_of_one_organization_at_once_are_served(redis: Redis, tmp_path: Path) -> None:
    """They do not say their length, and are short of what they might have."""
    bounds = InFlightBounds(bytes=800_000, bytes_of_one=200_000)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as gateway, ClientSession() as session:

        async def send() -> int:
            headers = {"authorization": f"Bearer {KEY}"}
            async with session.post(gateway.url + CHAT, data=chunked("say hello"), headers=headers) as response:
                await response.read()
                return response.status

        assert await asyncio.gather(*(send() for _ in range(9))) == [200] * 9


async def test_a_body_counts_as_it_comes_and_until_its_request_has_ended(redis: Redis, tmp_path: Path) -> None:
    async with gateway_stack(redis, tmp_path) as gateway, ClientSession() as session:
        gateway.server.behaviour.token_delay_s = 0.02
        headers = {"authorization": f"Bearer {KEY}"}
        async with session.post(gateway.url + CHAT, data=chunked("x " * 500), headers=headers) as response:
            assert response.status == 200
            assert 1_000 < _bytes(gateway) < 1_200
            await response.read()
        await until(lambda: _bytes(gateway) == 0)


async def test_four_organizations_leave_places_to_the_next(redis: Redis, tmp_path: Path) -> None:
    bounds = InFlightBounds(requests=16, requests_of_one=4)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as gateway, ClientSession() as session:
        tenants = [_new_tenant(gateway, f"org_{number}") for number in range(4)]
        async with AsyncExitStack() as stack:
            for key, uploads in zip(tenants, (4, 4, 4, 2), strict=True):
                for _ in range(uploads):
                    await stack.enter_async_context(upload(gateway, key=key))
            for key in tenants:
                assert (await ask(gateway, session, key)).status == 429
            assert (await ask(gateway, session, OTHER_KEY)).status == 200
