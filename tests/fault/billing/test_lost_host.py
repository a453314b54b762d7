"""A worker's host is lost in the middle of a commit: its row locks must not hold up who takes over."""

import pytest

from support.fakes.clock import FrozenClock
from tokenyard.core.redis_keys import BUCKETS
from tokenyard.storage.database import Database
from tokenyard.storage.outage import DatabaseDown
from tokenyard.storage.time_limits import IDLE_IN_TRANSACTION_S, LOCK_S, TimeLimits
from tokenyard_billing.bucket_leases import LEASE_MS, BucketLeases


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_the_leases_of_a_worker_that_fell_silent_are_free_again(database: Database) -> None:
    clock = FrozenClock()
    silent = Database(database.engine.url.render_as_string(hide_password=False), TimeLimits(idle_in_transaction_s=1))
    lost, other = (BucketLeases(of, clock, name) for of, name in ((silent, "lost"), (database, "other")))
    buckets = await lost.hold({})
    assert len(buckets) == BUCKETS

    went_on: list[frozenset[int]] = []

    async def commit_and_be_lost() -> None:
        async with silent.transaction() as session:
            await lost.fence(session, buckets)
            clock.advance(LEASE_MS / 1000 + 1)
            taken = await other.hold({})  # waits for the row locks
            async with database.transaction() as heir:
                await other.fence(heir, taken)
            went_on.append(taken)

    with pytest.raises(DatabaseDown):
        await commit_and_be_lost()
    assert went_on == [frozenset(range(BUCKETS))]
    await silent.close()


def test_locks_end_with_the_lease_that_they_prove() -> None:
    assert IDLE_IN_TRANSACTION_S * 1000 <= LEASE_MS
    assert LOCK_S < IDLE_IN_TRANSACTION_S
