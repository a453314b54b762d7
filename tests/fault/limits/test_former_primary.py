"""A primary that hung wakes up after another was named, and answers as if nothing had been."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from support.servers.valkey_sentinel import WatchedValkey, running_sentinels
from tokenyard.metering.round_trips import RoundTripPool
from tokenyard.storage.redis import connect_redis, current_run

PATIENT_S = 60.0  # nothing is lost by a timeout here


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedValkey]:
    with running_sentinels(tmp_path) as servers:
        yield servers


@pytest.fixture
async def redis(watched: WatchedValkey) -> AsyncIterator[Redis]:
    client = connect_redis(watched.url, command_timeout_s=PATIENT_S)
    yield client
    await client.aclose()


async def test_what_it_answers_late_counts_for_nothing(watched: WatchedValkey, redis: Redis) -> None:
    pool = redis.connection_pool
    assert isinstance(pool, RoundTripPool)
    commands = [b"*3\r\n$3\r\nSET\r\n$4\r\ntrip\r\n$1\r\n1\r\n"]
    assert await pool.round_trip(commands) == [b"OK"]
    run = await current_run(redis)
    with watched.servers[0].paused():
        trip = asyncio.create_task(pool.round_trip(commands))
        command = asyncio.ensure_future(redis.set("command", "1"))
        await asyncio.to_thread(watched.until_primary_is, 1)
        assert (await current_run(redis)).id != run.id
    with pytest.raises(RedisConnectionError):
        await command
    assert await trip == [b"OK"]  # sent again
    assert await redis.mget("trip", "command") == [b"1", None]
    await asyncio.to_thread(watched.until_replicated)
    assert await redis.mget("trip", "command") == [b"1", None]


async def test_it_is_noticed_though_no_connection_was_lost(watched: WatchedValkey, redis: Redis) -> None:
    run = await current_run(redis)
    with watched.servers[0].paused():
        await asyncio.to_thread(watched.until_primary_is, 1)
    assert (await current_run(redis)).id != run.id
    assert await redis.set("key", "1")
    await asyncio.to_thread(watched.until_replicated)
    assert await redis.get("key") == b"1"


async def test_the_run_is_known_while_no_sentinel_answers(watched: WatchedValkey, redis: Redis) -> None:
    run = await current_run(redis)
    watched.stop_sentinels()
    assert (await current_run(redis)).id == run.id
