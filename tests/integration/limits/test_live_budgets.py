"""The one rule by which a live budget follows SQL."""

import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import ORGANIZATION
from support.money.live_budgets import change_budget, pack_pending, read_budget, read_pending
from tokenyard.core.budgets import BudgetState, BudgetUpdate, wallet
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, budget, first_shape, pending
from tokenyard.limits.budget_figures import NO_LEDGER, BudgetFigures
from tokenyard.limits.live_budgets import KEYS_PER_CALL, RedisBudgets

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)


@pytest.fixture
def budgets(redis: Redis) -> RedisBudgets:
    return RedisBudgets(redis)


async def push(budgets: RedisBudgets, ledger: int, version: int, *keys: str, create: bool = False) -> None:
    state = BudgetState(NanoDollars(ledger), version)
    await budgets.apply([(ORGANIZATION, [BudgetUpdate(WALLET, state, keys, create)])])


async def figures(redis: Redis) -> BudgetFigures:
    return await read_budget(redis, BUCKET, WALLET)


async def test_only_a_push_that_may_create_makes_a_budget(budgets: RedisBudgets, redis: Redis) -> None:
    await push(budgets, 5, 1)
    assert not await redis.exists(budget(BUCKET, WALLET))
    await push(budgets, 5, 1, create=True)
    assert await figures(redis) == BudgetFigures(5, 1)


async def test_an_older_figure_never_wins_and_the_same_version_is_set_again(
    budgets: RedisBudgets, redis: Redis
) -> None:
    for ledger, version, expected in ((5, 3, 5), (9, 2, 5), (6, 3, 6), (2**62, 4, 2**62)):
        await push(budgets, ledger, version, create=True)
        assert (await figures(redis)).ledger == expected


async def test_what_sql_has_is_no_longer_pending(budgets: RedisBudgets, redis: Redis) -> None:
    keys = [f"req_{number}" for number in range(KEYS_PER_CALL + 5)]
    await push(budgets, 10, 1, create=True)
    await redis.hset(pending(BUCKET), mapping=dict.fromkeys([*keys, "req_later"], pack_pending(2, WALLET)))
    await change_budget(redis, BUCKET, WALLET, "pending", 2 * (len(keys) + 1))
    for _ in range(2):  # every call may be repeated
        await push(budgets, 7, 2, *keys, "req_unknown")
        assert await figures(redis) == BudgetFigures(7, 2, pending=2)
    assert await read_pending(redis, BUCKET, WALLET) == {"req_later": 2}


async def test_without_a_budget_nothing_is_counted_off(budgets: RedisBudgets, redis: Redis) -> None:
    await redis.hset(pending(BUCKET), "req_1", pack_pending(2, WALLET))
    await push(budgets, 7, 2, "req_1")
    assert not await redis.exists(budget(BUCKET, WALLET), pending(BUCKET))


async def test_a_bucket_is_not_ready_while_a_gateway_of_the_first_shape_holds_budgets(
    budgets: RedisBudgets, redis: Redis
) -> None:
    old_ready, old_holds = first_shape(BUCKET)
    now_ms = (await redis.time())[0] * 1000
    await redis.set(old_ready, "1")
    await redis.zadd(old_holds, {"running": now_ms + 60_000, "lost": now_ms - 60_000})
    for _ in range(2):
        await budgets.set_ready(BUCKET)
        assert not await budgets.is_ready(BUCKET)
        assert not await redis.exists(old_ready), "such a gateway lets nothing more in"
    await redis.zrem(old_holds, "running")
    await budgets.set_ready(BUCKET)
    assert await budgets.is_ready(BUCKET)


async def test_a_budget_that_is_being_loaded_misses_no_update(budgets: RedisBudgets, redis: Redis) -> None:
    await budgets.apply([(ORGANIZATION, [BudgetUpdate(WALLET, None, create=True)])])
    assert (await figures(redis)).version == NO_LEDGER, "admission still has to load it"
    await push(budgets, 90, 6)  # a charge that was committed after the look into SQL
    await push(budgets, 100, 5, create=True)
    assert await figures(redis) == BudgetFigures(90, 6)
