"""Admission opens when it is known what is held, and finds in SQL what Redis does not have."""

import time

import pytest
from redis.asyncio import Redis

from support.billing.stand import ACME, GLOBEX, budget_outbox, claims, send, settled, usage, worker
from tokenyard.core.budgets import BudgetState
from tokenyard.core.budgets import wallet as wallet_name
from tokenyard.core.clock import SystemClock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import BUCKETS, bucket_of, ready
from tokenyard.storage.database import Database
from tokenyard.webhooks.events import write_event
from tokenyard_billing.wallets.budgets import SqlBudgets
from tokenyard_billing.wallets.store import Wallet


async def grant(database: Database, redis: Redis, organization: OrganizationId, amount: int, key: str = "a") -> None:
    wallet = Wallet(database, budget_outbox(database, redis), write_event, SystemClock())
    await wallet.grant(organization, NanoDollars(amount), reason="paid", actor="op", idempotency_key=key)


async def open_count(redis: Redis) -> int:
    return sum([await redis.exists(ready(bucket)) for bucket in range(BUCKETS)])


async def test_a_new_installation_is_open_at_once(database: Database, redis: Redis) -> None:
    await grant(database, redis, ACME, 700)
    stand = worker(database, redis, renewal_ms=3_600_000)
    await stand.consumer.step()
    await stand.readiness.step()
    assert await open_count(redis) == BUCKETS


async def test_an_emptied_redis_opens_after_two_renewals(database: Database, redis: Redis) -> None:
    await grant(database, redis, ACME, 10**9)
    stand = worker(database, redis, renewal_ms=200)
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    await stand.consumer.step()
    await redis.flushall()

    emptied = time.monotonic()
    await stand.readiness.step()
    assert not await redis.exists(ready(bucket_of(ACME)))
    assert await redis.exists(ready(bucket_of(GLOBEX))), "nothing ever ran there"
    while not await redis.exists(ready(bucket_of(ACME))):
        await stand.readiness.step()
    assert time.monotonic() - emptied >= 0.4


async def test_a_monthly_budget_is_below_zero_by_what_was_spent(database: Database, redis: Redis) -> None:
    source = SqlBudgets(database)
    name = "month:proj_1:2026-03"
    assert await source.load(ACME, name) == BudgetState(NanoDollars(0), 0)
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    await worker(database, redis).consumer.step()
    assert await source.load(ACME, name) == BudgetState(NanoDollars(-3_000), 1)
    assert await source.load(GLOBEX, wallet_name(GLOBEX)) == BudgetState(NanoDollars(0), 0)
    with pytest.raises(KeyError):
        await source.load(ACME, "nonsense")
