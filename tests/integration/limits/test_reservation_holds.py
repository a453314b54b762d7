"""Reservations of jobs: held until the ledger has them, or until their lease ends."""

import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import ORGANIZATION, BudgetTable, admission_request, open_buckets, principal
from support.money.live_budgets import read_budget
from tokenyard.core.budgets import Budget, wallet
from tokenyard.core.errors import BudgetInUse, QuotaExceeded, Unavailable
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, holds, ready, usage_stream
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.reservation_holds import ReservationHolds
from tokenyard.limits.sweeper import Sweeper

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)
BUDGETS = [Budget(WALLET, NanoDollars(0))]


@pytest.fixture
async def reservations(redis: Redis, budgets: BudgetTable) -> ReservationHolds:
    await open_buckets(redis)
    budgets.set(WALLET, 1000)
    return ReservationHolds(redis, budgets.load)


async def held(redis: Redis) -> int:
    return (await read_budget(redis, BUCKET, WALLET)).held


async def test_a_reservation_is_held_once_and_released_once(reservations: ReservationHolds, redis: Redis) -> None:
    for _ in range(2):
        await reservations.hold(ORGANIZATION, "ftjob-1", BUDGETS, NanoDollars(600))
    assert await held(redis) == 600
    with pytest.raises(BudgetInUse):
        await reservations.hold(ORGANIZATION, "ftjob-2", BUDGETS, NanoDollars(500))
    with pytest.raises(QuotaExceeded) as refused:
        await reservations.hold(ORGANIZATION, "ftjob-2", BUDGETS, NanoDollars(1001))
    assert refused.value.code == "credit_balance_exhausted"
    for _ in range(2):
        await reservations.release(ORGANIZATION, "ftjob-1")
    assert await held(redis) == 0
    await reservations.hold(ORGANIZATION, "ftjob-2", BUDGETS, NanoDollars(500))


async def test_it_leaves_that_much_less_for_requests(reservations: ReservationHolds, admission: RedisAdmission) -> None:
    await reservations.hold(ORGANIZATION, "ftjob-1", BUDGETS, NanoDollars(950))
    with pytest.raises(BudgetInUse):
        await admission.admit(admission_request(principal(), amount=51))
    await admission.admit(admission_request(principal(), amount=50))


async def test_it_ends_with_its_lease_and_tells_nobody(
    reservations: ReservationHolds, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reservations.hold(ORGANIZATION, "ftjob-1", BUDGETS, NanoDollars(600))
    await Sweeper(redis, renewal_ms=0).sweep()
    assert await held(redis) == 600
    monkeypatch.setattr("tokenyard.limits.reservation_holds.LEASE_MS", 0)
    await reservations.hold(ORGANIZATION, "ftjob-1", BUDGETS, NanoDollars(600))
    await Sweeper(redis, renewal_ms=0).sweep()
    assert await held(redis) == 0
    assert await redis.zcard(holds(BUCKET)) == 0
    assert not await redis.exists(usage_stream(BUCKET))


async def test_an_unloaded_bucket_answers_503(reservations: ReservationHolds, redis: Redis) -> None:
    await redis.delete(ready(BUCKET))
    with pytest.raises(Unavailable):
        await reservations.hold(ORGANIZATION, "ftjob-1", BUDGETS, NanoDollars(1))
