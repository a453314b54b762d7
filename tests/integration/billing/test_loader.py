"""Redis gets its budgets from SQL, and admission opens only when they are there."""

import time

from redis.asyncio import Redis

from support.billing_stand import ACME, GLOBEX, FixedLimits, claims, live_budget, send, settled, usage, worker
from tokenyard.core.budgets import wallet as wallet_name
from tokenyard.core.clock import SystemClock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import BUCKETS, bucket_of, budget, ready
from tokenyard.limits.live_budgets import RedisBudgets
from tokenyard.storage.database import Database
from tokenyard_billing.wallets.budgets import SqlBudgets
from tokenyard_billing.wallets.store import Wallet


async def grant(database: Database, redis: Redis, organization: OrganizationId, amount: int, key: str = "a") -> None:
    wallet = Wallet(database, SqlBudgets(database, FixedLimits()), RedisBudgets(redis), SystemClock())
    await wallet.grant(organization, NanoDollars(amount), reason="paid", actor="op", idempotency_key=key)


async def open_count(redis: Redis) -> int:
    return sum([await redis.exists(ready(bucket)) for bucket in range(BUCKETS)])


async def test_a_new_installation_is_open_at_once(database: Database, redis: Redis) -> None:
    await grant(database, redis, ACME, 700)
    stand = worker(database, redis, renewal_ms=3_600_000)
    await stand.consumer.step()
    await stand.loader.step()
    assert await open_count(redis) == BUCKETS
    assert await live_budget(redis, ACME) == {"ledger": 700, "version": 1, "pending": 0, "held": 0}


async def test_an_emptied_redis_opens_after_two_renewals(database: Database, redis: Redis) -> None:
    await grant(database, redis, ACME, 10**9)
    stand = worker(database, redis, renewal_ms=200)
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    await stand.consumer.step()
    await redis.flushall()

    emptied = time.monotonic()
    await stand.loader.step()
    assert not await redis.exists(ready(bucket_of(ACME)))
    assert await redis.exists(ready(bucket_of(GLOBEX))), "nothing ever ran there"
    assert (await live_budget(redis, ACME))["version"] == 2
    while not await redis.exists(ready(bucket_of(ACME))):
        await stand.loader.step()
    assert time.monotonic() - emptied >= 0.4


async def test_a_ledger_value_that_never_reached_redis_is_brought_later(database: Database, redis: Redis) -> None:
    stand = worker(database, redis)
    await grant(database, redis, ACME, 700)
    await stand.consumer.step()
    await stand.loader.step()
    name = budget(bucket_of(ACME), wallet_name(ACME))
    await redis.hset(name, mapping={"ledger": 1, "version": 0})
    await stand.loader.step()
    assert (await live_budget(redis, ACME))["ledger"] == 700


async def test_an_older_ledger_value_never_wins(database: Database, redis: Redis) -> None:
    stand = worker(database, redis)
    await grant(database, redis, ACME, 700)
    await stand.consumer.step()
    name = budget(bucket_of(ACME), wallet_name(ACME))
    await redis.hset(name, mapping={"ledger": 123, "version": 9})
    await stand.loader.step()
    assert (await live_budget(redis, ACME))["ledger"] == 123


async def test_a_monthly_budget_is_its_limit_less_what_was_spent(database: Database, redis: Redis) -> None:
    limits = FixedLimits({"proj_1": 1_000_000})
    source = SqlBudgets(database, limits)
    fresh = await source.load(ACME, "month:proj_1:2026-03")
    assert fresh is not None
    assert (fresh.ledger, fresh.version) == (1_000_000, 0)
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    await worker(database, redis, limits=limits).consumer.step()
    spent = await source.load(ACME, "month:proj_1:2026-03")
    assert spent is not None
    assert (spent.ledger, spent.version) == (1_000_000 - 3_000, 1)
    assert await source.load(ACME, "month:proj_other:2026-03") is None
    assert await source.load(ACME, "nonsense") is None
    empty = await source.load(GLOBEX, wallet_name(GLOBEX))
    assert empty is not None
    assert empty.ledger == 0
