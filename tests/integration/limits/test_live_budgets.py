"""The one rule by which a live budget follows SQL."""

import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import ORGANIZATION
from support.redis_reader import read_figures
from tokenyard.core.budgets import BudgetState, BudgetUpdate, wallet
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, budget, pending
from tokenyard.limits.live_budgets import KEYS_PER_CALL, RedisBudgets

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)


@pytest.fixture
def budgets(redis: Redis) -> RedisBudgets:
    return RedisBudgets(redis)


async def push(budgets: RedisBudgets, ledger: int, version: int, *keys: str, create: bool = False) -> None:
    state = BudgetState(NanoDollars(ledger), version)
    await budgets.apply([(ORGANIZATION, [BudgetUpdate(WALLET, state, keys, create)])])


async def figures(redis: Redis) -> dict[str, int]:
    return await read_figures(redis, budget(BUCKET, WALLET))


async def test_only_a_push_that_may_create_makes_a_budget(budgets: RedisBudgets, redis: Redis) -> None:
    await push(budgets, 5, 1)
    assert await figures(redis) == {}
    await push(budgets, 5, 1, create=True)
    assert await figures(redis) == {"ledger": 5, "version": 1}


async def test_an_older_figure_never_wins_and_the_same_version_is_set_again(
    budgets: RedisBudgets, redis: Redis
) -> None:
    for ledger, version, expected in ((5, 3, 5), (9, 2, 5), (6, 3, 6), (2**62, 4, 2**62)):
        await push(budgets, ledger, version, create=True)
        assert (await figures(redis))["ledger"] == expected


async def test_what_sql_has_is_no_longer_pending(budgets: RedisBudgets, redis: Redis) -> None:
    keys = [f"req_{number}" for number in range(KEYS_PER_CALL + 5)]
    await push(budgets, 10, 1, create=True)
    await redis.hset(pending(BUCKET, WALLET), mapping=dict.fromkeys([*keys, "req_later"], 2))
    await redis.hset(budget(BUCKET, WALLET), "pending", 2 * (len(keys) + 1))
    for _ in range(2):  # every call may be repeated
        await push(budgets, 7, 2, *keys, "req_unknown")
        assert await figures(redis) == {"ledger": 7, "version": 2, "pending": 2}
    assert await redis.hkeys(pending(BUCKET, WALLET)) == [b"req_later"]


async def test_without_a_budget_nothing_is_counted_off(budgets: RedisBudgets, redis: Redis) -> None:
    await redis.hset(pending(BUCKET, WALLET), "req_1", 2)
    await push(budgets, 7, 2, "req_1")
    assert await figures(redis) == {}
    assert not await redis.exists(pending(BUCKET, WALLET))


async def test_a_budget_that_is_being_loaded_misses_no_update(budgets: RedisBudgets, redis: Redis) -> None:
    await budgets.apply([(ORGANIZATION, [BudgetUpdate(WALLET, None, create=True)])])
    assert "ledger" not in await figures(redis), "admission still has to load it"
    await push(budgets, 90, 6)  # a charge that was committed after the look into SQL
    await push(budgets, 100, 5, create=True)
    assert await figures(redis) == {"ledger": 90, "version": 6}
