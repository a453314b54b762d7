"""Each bucket has one holder, shares are fair, and who lost a lease writes nothing."""

import itertools
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from support.billing.stand import ACME, EagerLeases, charges, claims, rows, send, settled, usage, worker
from support.fakes.clock import FrozenClock
from tokenyard.core.ids import PriceId
from tokenyard.core.redis_keys import BUCKETS, CONSUMER_GROUP, bucket_of, usage_stream
from tokenyard.storage.database import Database
from tokenyard.storage.redis import redis_time_ms
from tokenyard_billing import bucket_leases
from tokenyard_billing.bucket_leases import LEASE_MS, LeaseLost
from tokenyard_billing.tables import BucketLease


async def test_workers_share_the_buckets_and_take_over_from_the_dead(database: Database) -> None:
    clock = FrozenClock()
    first, second = (EagerLeases(database, clock, name) for name in ("one", "two"))
    assert len(await first.hold_now()) == BUCKETS
    assert await second.hold_now() == frozenset()
    assert len(await first.hold_now()) == BUCKETS // 2
    assert len(await second.hold_now()) == BUCKETS // 2
    assert not await first.hold_now() & await second.hold_now()

    clock.advance(LEASE_MS / 1000 + 1)  # the first one is dead
    assert len(await second.hold_now()) == BUCKETS


async def test_a_worker_that_stops_hands_over_at_once(database: Database) -> None:
    clock = FrozenClock()
    first, second = (EagerLeases(database, clock, name) for name in ("one", "two"))
    await first.hold_now()
    await first.release()
    assert len(await second.hold_now()) == BUCKETS


async def test_who_lost_the_lease_commits_nothing(
    database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Leases are renewed by the machine's own time: it stands still, so that the old one does not look in between.
    monkeypatch.setattr(bucket_leases, "time", SimpleNamespace(monotonic=lambda: 0.0))
    clock = FrozenClock()
    old, new = (worker(database, redis, name=name, clock=clock) for name in ("old", "new"))
    await old.consumer.step()
    clock.advance(LEASE_MS / 1000 + 1)
    await new.consumer.step()
    assert bucket_of(ACME) in new.leases.held
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    with pytest.raises(LeaseLost):
        await old.consumer.step()
    assert await charges(database) == {}
    await new.leases.release()
    # What the old one read and could not commit is taken over by whoever holds the bucket next.
    await worker(database, redis, name="third", clock=clock).consumer.step()
    assert list(await charges(database)) == ["req_a"]


@pytest.fixture
def eager_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = itertools.count(step=3_600)
    monkeypatch.setattr(bucket_leases, "time", SimpleNamespace(monotonic=lambda: next(hours)))


async def watermark(database: Database) -> int:
    [found] = [one.watermark_ms for one in await rows(database, BucketLease) if one.bucket == bucket_of(ACME)]
    return int(found)


@pytest.mark.usefixtures("eager_renewals")
async def test_a_watermark_follows_redis_time_where_all_is_in_sql(database: Database, redis: Redis) -> None:
    consumer = worker(database, redis).consumer
    await consumer.step()
    before_ms = await redis_time_ms(redis)
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    await consumer.step()
    await consumer.step()
    assert before_ms <= await watermark(database) <= await redis_time_ms(redis)


@pytest.mark.usefixtures("eager_renewals")
async def test_no_watermark_passes_what_waits_for_a_price(database: Database, redis: Redis) -> None:
    consumer = worker(database, redis).consumer
    await consumer.step()
    await send(redis, settled(claims("req_waits", price=PriceId("2099-01-01/none")), usage(10, 5)))
    waits_ms = await redis_time_ms(redis)
    for number in range(3):
        await send(redis, settled(claims(f"req_{number}"), usage(10, 5)))
        await consumer.step()
    assert sorted(await charges(database)) == ["req_0", "req_1", "req_2"]
    assert 0 < await watermark(database) <= waits_ms


@pytest.mark.usefixtures("eager_renewals")
async def test_no_watermark_passes_what_another_consumer_read_and_left(database: Database, redis: Redis) -> None:
    consumer = worker(database, redis).consumer
    await consumer.step()
    await send(redis, settled(claims("req_left"), usage(10, 5)))
    left_ms = await redis_time_ms(redis)
    await redis.xreadgroup(CONSUMER_GROUP, "lost", {usage_stream(bucket_of(ACME)): ">"})
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    for _ in range(2):
        await consumer.step()
    assert list(await charges(database)) == ["req_a"]
    assert 0 < await watermark(database) <= left_ms
