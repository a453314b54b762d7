"""Who is refused again and again waits for it, and for nothing else; nobody else does."""

import asyncio
import gc
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector
from redis.asyncio import Redis

from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, OTHER_KEY, GatewayStack, gateway_stack, until
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.principal import Role
from tokenyard.gateway.path import inference
from tokenyard.tenancy.keys import new_secret
from tokenyard.web.network_pace import Allowance

BODY: dict[str, object] = {"model": BASE.id, "messages": HELLO}
WRONG: dict[str, object] = {**BODY, "n": 0}
LARGE: dict[str, object] = {**WRONG, "messages": [{"role": "user", "content": "a" * 90_000}]}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "REFUSED_BURST_S", 0.0)
    monkeypatch.setattr(inference, "FREE_BYTES", 50_000)


async def _refused_at_once(gateway: GatewayStack, session: ClientSession, body: dict[str, object], key: str) -> bool:
    """Tell whether the refusal is there when the other one's requests have been served."""
    refusal = asyncio.create_task(gateway.status(session, body, key=key))
    for _ in range(5):
        assert await gateway.status(session, BODY, key=OTHER_KEY) == 200
    try:
        return refusal.done() and refusal.result() == 400
    finally:
        refusal.cancel()


async def test_a_refusal_waits_and_what_is_right_does_not(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "REFUSAL_S", 0.08)  # eight seconds of waiting
    async with gateway_stack(redis, tmp_path) as gateway, ClientSession() as session:
        assert not await _refused_at_once(gateway, session, WRONG, KEY)
        assert await gateway.status(session, BODY, key=KEY) == 200
        await gateway.nothing_is_held()


async def test_one_refusal_is_told_at_once(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "REFUSAL_S", 0.0)
    async with gateway_stack(redis, tmp_path) as gateway, ClientSession() as session:
        assert await gateway.status(session, WRONG, key=KEY) == 400


async def test_strangers_that_ask_for_much_wait_for_each_other(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "OF_A_STRANGER", Allowance(1.0, 0.1))
    monkeypatch.setattr(inference, "OF_STRANGERS", Allowance(0.001, 0.1))
    monkeypatch.setattr(inference, "STRANGER_S", 0.06)
    made_up = new_secret(Role.TENANT)
    async with gateway_stack(redis, tmp_path) as gateway:
        async with _from("127.0.0.8") as one:
            assert await gateway.status(one, BODY, key=made_up) == 401
        async with _from("127.0.0.9") as another:
            refusal = asyncio.create_task(gateway.status(another, BODY, key=made_up))
            for _ in range(5):
                assert await gateway.status(another, BODY, key=KEY) == 200
            assert not refusal.done(), "it took no more than the first, but both together have had what is for them"
            refusal.cancel()


def _from(address: str) -> ClientSession:
    return ClientSession(connector=TCPConnector(local_addr=(address, 0)))


async def test_of_who_wore_us_out_large_bodies_are_not_read_for_a_while(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "REFUSAL_S", 0.0)
    monkeypatch.setattr(inference, "REFUSED_SHARE", 1e-9)  # to read one wrong body takes all of it
    monkeypatch.setattr("tokenyard.web.token_buckets.LONGEST_WAIT_S", 1.0)
    async with gateway_stack(redis, tmp_path) as gateway, ClientSession() as session:
        found = await asyncio.gather(*(gateway.status(session, LARGE, key=KEY) for _ in range(6)))
        assert set(found) == {400, 429}
        assert await gateway.status(session, BODY, key=KEY) == 200
        assert await gateway.status(session, LARGE, key=OTHER_KEY) == 400


async def test_what_is_refused_does_not_wait_for_the_collector(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that knows the frames which know it keeps their bodies, and the collector seldom runs here."""
    monkeypatch.setattr(inference, "REFUSAL_S", 0.0)
    async with gateway_stack(redis, tmp_path) as gateway, ClientSession() as session:
        gc.collect()
        gc.disable()
        try:
            assert await gateway.status(session, WRONG, key=KEY) == 400
            await until(_nothing_is_left)
        finally:
            gc.enable()


async def _nothing_is_left() -> bool:
    return all(type(one) is not InvalidRequest for one in gc.get_objects())
