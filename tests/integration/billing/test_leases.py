"""Each bucket has one holder, shares are fair, and who lost a lease writes nothing."""

from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from support.billing.stand import ACME, EagerLeases, charges, claims, send, settled, usage, worker
from support.fakes.clock import FrozenClock
from tokenyard.core.redis_keys import BUCKETS, bucket_of
from tokenyard.storage.database import Database
from tokenyard_billing import bucket_leases
from tokenyard_billing.bucket_leases import LEASE_MS, LeaseLost


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
