"""Redis is restarted, with or without its last second: the outbox and the change feed make good what it lost."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.fakes.clock import FrozenClock
from support.gateway_stack import until
from support.redis_reader import as_bytes
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.storage.change_feed import ChangeFeed, publish
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard.storage.transactional_outbox import KEPT_MS, TransactionalOutbox, write_message


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    server = Valkey(tmp_path, free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def own_redis(valkey: Valkey) -> AsyncIterator[Redis]:
    client = connect_redis(valkey.url)
    yield client
    await client.aclose()


class RedisSet:
    """Carries each payload into a set in Redis, which forgets what it must not; a test may act in between."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.lost_meanwhile: Valkey | None = None

    async def add(self, payloads: Sequence[str]) -> None:
        await self._redis.sadd("carried", *payloads)
        if self.lost_meanwhile is not None:
            lose_everything(self.lost_meanwhile)
            self.lost_meanwhile = None

    async def members(self) -> set[str]:
        return {as_bytes(member).decode() for member in await self._redis.smembers("carried")}


def lose_everything(valkey: Valkey) -> None:
    valkey.kill()
    valkey.forget()
    valkey.start()


async def test_a_redis_that_lost_its_last_seconds_is_given_them_again(
    database: Database, valkey: Valkey, own_redis: Redis
) -> None:
    clock, carried = FrozenClock(), RedisSet(own_redis)
    outbox, other = (TransactionalOutbox(database, own_redis, clock, {"set": carried.add}) for _ in range(2))

    async def change(name: str) -> None:
        async with database.transaction() as session:
            message = await write_message(session, "set", name.encode(), clock.now_ms())
        await outbox.carry([message])

    await change("long ago")
    clock.advance(KEPT_MS / 1000 + 1)
    await outbox.clean()
    await change("just now")
    lose_everything(valkey)
    clock.advance(1)
    for loop in (other, outbox, other):
        await loop.clean()
        await loop.step()
    assert await carried.members() == {"just now"}, "what is long safe is not carried again"


async def test_a_redis_that_is_lost_between_carrying_and_noting_is_given_it_again(
    database: Database, valkey: Valkey, own_redis: Redis
) -> None:
    clock, carried = FrozenClock(), RedisSet(own_redis)
    outbox = TransactionalOutbox(database, own_redis, clock, {"set": carried.add})
    carried.lost_meanwhile = valkey
    async with database.transaction() as session:
        message = await write_message(session, "set", b"apple", clock.now_ms())
    await outbox.try_to_carry([message])
    assert await carried.members() == set()
    clock.advance(1)
    await outbox.step()
    assert await carried.members() == {"apple"}


async def test_who_follows_the_feed_learns_that_it_was_out_of_reach(
    valkey: Valkey, own_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str | None] = []

    async def listen(subject: str | None) -> None:
        told.append(subject)

    async with ChangeFeed(own_redis, {"fruit": listen}):
        await until(lambda: told == [None])
        await publish(own_redis, "fruit", "apple")
        await until(lambda: told == [None, "apple"])
        valkey.kill()
        await until(lambda: "out of reach" in caplog.text)
        valkey.start()
        await until(lambda: told[2:] == [None])
        await publish(own_redis, "fruit", "pear")
        await until(lambda: told[3:] == ["pear"])


async def test_a_feed_that_begins_before_redis_does_follows_it_in_the_end(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path, free_port())
    redis = connect_redis(valkey.url)
    told: list[str | None] = []

    async def listen(subject: str | None) -> None:
        told.append(subject)

    try:
        async with ChangeFeed(redis, {"fruit": listen}):
            valkey.start()
            await until(lambda: told == [None])
            await publish(redis, "fruit", "apple")
            await until(lambda: told == [None, "apple"])
    finally:
        await redis.aclose()
        valkey.kill()
