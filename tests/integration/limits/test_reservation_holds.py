"""Reservations of jobs, which have no lease."""

import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import ORGANIZATION, BudgetTable, admission_request, open_buckets, principal
from tokenyard.core.budgets import wallet
from tokenyard.core.errors import QuotaExceeded, Unavailable
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, budget, holds, ready
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.reservation_holds import ReservationHolds
from tokenyard.limits.sweeper import Sweeper

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)


@pytest.fixture
async def reservations(redis: Redis, budgets: BudgetTable) -> ReservationHolds:
    await open_buckets(redis)
    budgets.set(WALLET, 1000)
    return ReservationHolds(redis, budgets.load)


async def held(redis: Redis) -> int:
    return int(await redis.hget(budget(BUCKET, WALLET), "held") or 0)


async def test_a_reservation_is_held_once_and_released_once(reservations: ReservationHolds, redis: Redis) -> None:
    for _ in range(2):
        await reservations.hold(ORGANIZATION, "ftjob-1", [WALLET], NanoDollars(600))
    assert await held(redis) == 600
    with pytest.raises(QuotaExceeded) as refused:
        await reservations.hold(ORGANIZATION, "ftjob-2", [WALLET], NanoDollars(500))
    assert refused.value.code == "credit_balance_exhausted"
    for _ in range(2):
        await reservations.release(ORGANIZATION, "ftjob-1")
    assert await held(redis) == 0
    await reservations.hold(ORGANIZATION, "ftjob-2", [WALLET], NanoDollars(500))


async def test_it_leaves_that_much_less_for_requests(reservations: ReservationHolds, admission: RedisAdmission) -> None:
    await reservations.hold(ORGANIZATION, "ftjob-1", [WALLET], NanoDollars(950))
    with pytest.raises(QuotaExceeded):
        await admission.admit(admission_request(principal(), amount=51))
    await admission.admit(admission_request(principal(), amount=50))


async def test_it_never_expires(reservations: ReservationHolds, redis: Redis) -> None:
    await reservations.hold(ORGANIZATION, "ftjob-1", [WALLET], NanoDollars(600))
    await Sweeper(redis, renewal_ms=0).sweep()
    assert await redis.zscore(holds(BUCKET), "ftjob-1") == float("inf")
    assert await held(redis) == 600


async def test_an_unloaded_bucket_answers_503(reservations: ReservationHolds, redis: Redis) -> None:
    await redis.delete(ready(BUCKET))
    with pytest.raises(Unavailable):
        await reservations.hold(ORGANIZATION, "ftjob-1", [WALLET], NanoDollars(1))
