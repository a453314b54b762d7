"""What Redis keeps under idempotency keys: who may take a key, for how long, and how much of it one may have."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from support.redis_reader import as_bytes, read_figures
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.core.ids import OrganizationId, RequestId
from tokenyard.core.redis_keys import bucket_of, idempotent_bytes, idempotent_reply, idempotent_running, revision
from tokenyard.gateway.idempotency.store import IdempotencyStore, KeyClaim, KeyedRequest, KeyState
from tokenyard.storage.redis import connect_redis

ACME, GLOBEX = OrganizationId("org_acme"), OrganizationId("org_globex")
BUCKET = bucket_of(ACME)
KIB = 1024
DAY_MS = 86_400_000
FIRST = KeyedRequest("name", b"print", RequestId("req_1"))
AGAIN = FIRST._replace(request=RequestId("req_2"))


@pytest.fixture
def store(redis: Redis) -> IdempotencyStore:
    return IdempotencyStore(redis, lease_ms=30_000, max_bytes=1024 * KIB)


async def _claim(
    store: IdempotencyStore, keyed: KeyedRequest, organization: OrganizationId = ACME, *, only_kept: bool = False
) -> str:
    return (await store.claim(organization, keyed, revision=1, only_kept=only_kept)).state


def _named(number: int) -> KeyedRequest:
    return KeyedRequest(f"name-{number}", b"print", RequestId(f"req_{number}"))


async def test_a_key_is_taken_once(store: IdempotencyStore) -> None:
    found = await asyncio.gather(*(_claim(store, FIRST._replace(request=RequestId(f"req_{at}"))) for at in range(50)))
    assert sorted(found) == ["claimed"] + 49 * ["running"]


async def test_every_command_may_be_run_twice(store: IdempotencyStore, redis: Redis) -> None:
    assert [await _claim(store, FIRST) for _ in range(2)] == ["claimed", "claimed"]
    assert [await store.keep(ACME, FIRST, b"encrypted") for _ in range(2)] == ["kept", "kept"]
    assert sum((await read_figures(redis, idempotent_bytes(BUCKET, ACME))).values()) == KIB + len(b"encrypted")
    other = _named(7)
    assert await _claim(store, other) == "claimed"
    for _ in range(2):
        await store.forget(ACME, other)
    assert await _claim(store, _named(7)._replace(request=RequestId("req_8"))) == "claimed"


async def test_a_reply_is_kept_for_a_day(store: IdempotencyStore, redis: Redis) -> None:
    await _claim(store, FIRST)
    await store.keep(ACME, FIRST, b"encrypted")
    assert await store.claim(ACME, AGAIN, revision=1, only_kept=False) == KeyClaim(KeyState.KEPT, b"encrypted")
    name = idempotent_reply(BUCKET, ACME, "name")
    assert DAY_MS - 10_000 < await redis.pttl(name) <= DAY_MS
    memory = await redis.memory_usage(name)
    assert memory is not None
    assert memory <= KIB, "as much as a record is counted for"


async def test_one_without_a_reply_is_kept_too(store: IdempotencyStore) -> None:
    await _claim(store, FIRST)
    assert await store.keep(ACME, FIRST, b"") == "gone"
    assert await _claim(store, AGAIN) == "gone"


async def test_another_body_is_told_apart_while_it_runs_and_after(store: IdempotencyStore) -> None:
    other = AGAIN._replace(fingerprint=b"other")
    await _claim(store, FIRST)
    assert await _claim(store, other) == "other_body"
    await store.keep(ACME, FIRST, b"encrypted")
    assert await _claim(store, other) == "other_body"


async def test_organizations_have_their_own(store: IdempotencyStore) -> None:
    await _claim(store, FIRST)
    await store.keep(ACME, FIRST, b"encrypted")
    assert await _claim(store, AGAIN, GLOBEX) == "claimed"


async def test_what_is_wanted_only_if_it_is_there_takes_no_key(store: IdempotencyStore) -> None:
    assert await _claim(store, FIRST, only_kept=True) == "unknown"
    assert await _claim(store, AGAIN) == "claimed"
    assert await _claim(store, FIRST, only_kept=True) == "running"


async def test_a_caller_that_was_changed_is_told(store: IdempotencyStore, redis: Redis) -> None:
    await _claim(store, FIRST)
    await store.keep(ACME, FIRST, b"encrypted")
    await redis.set(revision(BUCKET, ACME), 2)
    assert await _claim(store, AGAIN) == "outdated"


class TestLeases:
    @pytest.fixture
    def store(self, redis: Redis) -> IdempotencyStore:
        return IdempotencyStore(redis, lease_ms=200)

    async def test_one_that_is_not_renewed_ends(self, store: IdempotencyStore, redis: Redis) -> None:
        await _claim(store, FIRST)
        await asyncio.sleep(0.25)
        assert await _claim(store, AGAIN) == "claimed"
        assert await store.keep(ACME, FIRST, b"late") == "lost", "it is another request's by now"
        await store.renew(ACME, FIRST)
        await store.forget(ACME, FIRST)
        assert await _claim(store, FIRST) == "running"
        assert await store.keep(ACME, AGAIN, b"encrypted") == "kept"

    async def test_one_that_is_renewed_goes_on(self, store: IdempotencyStore) -> None:
        await _claim(store, FIRST)
        for _ in range(6):
            await asyncio.sleep(0.05)
            await store.renew(ACME, FIRST)
        assert await _claim(store, AGAIN) == "running"

    async def test_one_that_redis_lost_is_taken_again(self, store: IdempotencyStore, redis: Redis) -> None:
        await _claim(store, FIRST)
        await redis.flushall()
        await store.renew(ACME, FIRST)
        assert await _claim(store, AGAIN) == "running"

    async def test_a_renewal_after_the_end_changes_nothing(self, store: IdempotencyStore, redis: Redis) -> None:
        await _claim(store, FIRST)
        await store.keep(ACME, FIRST, b"encrypted")
        await store.renew(ACME, FIRST)
        assert await redis.pttl(idempotent_reply(BUCKET, ACME, "name")) > DAY_MS // 2

    async def test_a_reply_is_kept_also_when_its_lease_had_ended(self, store: IdempotencyStore) -> None:
        await _claim(store, FIRST)
        await asyncio.sleep(0.25)
        assert await store.keep(ACME, FIRST, b"encrypted") == "kept"
        assert await _claim(store, AGAIN) == "kept"


class TestBounds:
    @pytest.fixture
    def store(self, redis: Redis) -> IdempotencyStore:
        return IdempotencyStore(redis, lease_ms=30_000, max_bytes=200 * KIB)

    async def test_running_requests_are_bounded(self, store: IdempotencyStore) -> None:
        assert [await _claim(store, _named(at)) for at in range(4)] == 3 * ["claimed"] + ["full"]
        assert await _claim(store, _named(9), GLOBEX) == "claimed"
        await store.forget(ACME, _named(0))
        assert await _claim(store, _named(9)) == "claimed"

    async def test_what_is_kept_is_bounded(self, store: IdempotencyStore, redis: Redis) -> None:
        await _claim(store, FIRST)
        assert await store.keep(ACME, FIRST, b"x" * 150 * KIB) == "kept"
        claim = await store.claim(ACME, _named(2), revision=1, only_kept=False)
        assert claim.state is KeyState.FULL
        assert DAY_MS <= claim.ms <= DAY_MS + 3_600_000
        assert await _claim(store, AGAIN) == "kept", "what is there can be had"
        bytes_name = idempotent_bytes(BUCKET, ACME)
        (hour,) = await read_figures(redis, bytes_name)
        await redis.hset(bytes_name, str(int(hour) - 25), (await read_figures(redis, bytes_name))[hour])
        await redis.hdel(bytes_name, hour)
        assert await _claim(store, _named(2)) == "claimed", "a day later"
        assert not await read_figures(redis, bytes_name)

    async def test_a_reply_that_there_is_no_room_for_is_gone(self, store: IdempotencyStore, redis: Redis) -> None:
        for at in range(3):
            await _claim(store, _named(at))
        outcomes = [await store.keep(ACME, _named(at), b"x" * 90 * KIB) for at in range(3)]
        assert outcomes == ["kept", "kept", "gone"]
        assert sum((await read_figures(redis, idempotent_bytes(BUCKET, ACME))).values()) < 200 * KIB

    async def test_a_process_that_died_holds_no_bytes(self, redis: Redis) -> None:
        store = IdempotencyStore(redis, lease_ms=200, max_bytes=100 * KIB)
        await _claim(store, _named(1))
        assert await _claim(store, _named(2)) == "full"
        await asyncio.sleep(0.25)
        assert await _claim(store, _named(2)) == "claimed"
        assert [as_bytes(name) for name in await redis.zrange(idempotent_running(BUCKET, ACME), 0, -1)] == [b"req_2"]


@pytest.fixture
async def small_redis(tmp_path: Path) -> AsyncIterator[Redis]:
    valkey = Valkey(tmp_path, free_port())
    valkey.start()
    client = connect_redis(valkey.url)
    yield client
    await client.aclose()
    valkey.kill()


async def test_redis_is_never_filled(small_redis: Redis) -> None:
    """A fifth of its memory is left to what money needs, however many organizations there are."""
    store = IdempotencyStore(small_redis, lease_ms=30_000)
    limit = int((await small_redis.info("memory"))["used_memory"]) + 20 * 1024 * KIB
    await small_redis.config_set("maxmemory", limit)
    outcomes, number = set[str](), 0
    while "scarce" not in outcomes:
        keyed, organization = _named(number), OrganizationId(f"org_{number}")
        found = await _claim(store, keyed, organization)
        outcomes.add(found)
        if found == "claimed":
            await store.keep(organization, keyed, b"x" * 256 * KIB)
        number += 1
        assert number < 200
    assert outcomes == {"claimed", "scarce"}
    used = int((await small_redis.info("memory"))["used_memory"])
    assert used < 0.85 * limit
    await small_redis.set("money", b"x" * KIB)


async def test_a_redis_that_hangs_is_an_error_in_time(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path, free_port())
    valkey.start()
    client = connect_redis(valkey.url)
    store = IdempotencyStore(client, lease_ms=30_000)
    await _claim(store, FIRST)
    try:
        with valkey.paused():
            async with asyncio.timeout(20):
                found = await asyncio.gather(*(_claim(store, _named(at)) for at in range(100)), return_exceptions=True)
        assert {type(error) for error in found} <= {*RedisError.__subclasses__(), RedisError}
    finally:
        await client.aclose()
        valkey.kill()
