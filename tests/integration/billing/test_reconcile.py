"""Books that were tampered with do not pass."""

import asyncio

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from support.billing_stand import (
    ACME,
    claims,
    expired,
    live_budget,
    reported,
    send,
    settled,
    trained,
    usage,
    worker,
)
from tokenyard.core.budgets import wallet
from tokenyard.core.redis_keys import bucket_of, budget
from tokenyard.metering.events import Outcome
from tokenyard.storage.database import Database
from tokenyard.storage.time_limits import TimeLimits
from tokenyard_billing.proof.reconcile import LedgerReconciler


async def filled(database: Database, redis: Redis) -> None:
    await redis.hset(budget(bucket_of(ACME), wallet(ACME)), mapping={"ledger": 0, "version": 0})
    await send(
        redis,
        settled(claims("req_a"), usage(10, 5)),
        reported(claims("req_a"), usage(10, 5)),
        settled(claims("req_b", 2), usage(10, 2), Outcome.REPLICA_LOST),
        reported(claims("req_b", 1), usage(10, 1)),
        reported(claims("req_b", 2), usage(10, 4)),
        settled(claims("req_c"), usage(3, 3)),
        trained("ftjob-1", 100),
    )
    await worker(database, redis).consumer.step()


async def test_honest_books_add_up_with_every_difference_named(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    books = await LedgerReconciler(database, redis).reconcile()
    assert books.ok
    assert books.tokens.unexplained == 0
    assert books.tokens.named == {"replica_silent": -6, "counts_differ": 2, "undecided": 0}
    assert (books.tokens.reported, books.tokens.charged, books.tokens.waste) == (40, 33, 11)


@pytest.mark.parametrize(
    ("tampering", "name"),
    [
        ("UPDATE billing_entries SET amount = amount + 1 WHERE account = 'wallet'", "transaction_not_zero"),
        ("UPDATE billing_balances SET amount = amount + 1 WHERE account = 'wallet'", "balance_not_entries"),
        ("DELETE FROM billing_balances WHERE account = 'revenue'", "balance_not_entries"),
        ("UPDATE billing_charges SET amount = amount + 1 WHERE charge_key = 'req_a'", "charges_not_revenue"),
        ("DELETE FROM billing_charges WHERE charge_key = 'req_a'", "charges_not_revenue"),
        ("UPDATE billing_charges SET transaction = NULL WHERE charge_key = 'req_a'", "charge_not_posted"),
        ("UPDATE billing_hourly_usage SET amount = amount + 1", "usage_not_charges"),
        ("DELETE FROM billing_waste", "tokens_unexplained"),
    ],
)
async def test_tampering_is_found_and_named(database: Database, redis: Redis, tampering: str, name: str) -> None:
    await filled(database, redis)
    async with database.transaction() as session:
        await session.execute(text(tampering.replace("transaction =", '"transaction" =')))
    books = await LedgerReconciler(database, redis).reconcile()
    assert not books.ok
    assert name in {difference.name for difference in books.differences if difference.broken}


async def test_a_live_budget_that_drifted_is_found_when_nothing_is_on_its_way(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    await redis.hincrby(budget(bucket_of(ACME), wallet(ACME)), "ledger", 5)
    assert (await live_budget(redis, ACME))["version"] > 0
    books = await LedgerReconciler(database, redis).reconcile()
    assert [difference.name for difference in books.differences if difference.broken] == ["live_budget"]
    await send(redis, expired(claims("req_w")))  # on its way: Redis and SQL may differ meanwhile
    assert (await LedgerReconciler(database, redis).reconcile()).ok


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_the_checks_may_take_longer_than_a_request(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    hurried = Database(database.engine.url.render_as_string(hide_password=False), TimeLimits(statement_s=1))
    async with database.transaction() as session:
        await session.execute(text("LOCK TABLE billing_entries"))
        checking = asyncio.create_task(LedgerReconciler(hurried, redis).reconcile())
        await asyncio.wait([checking], timeout=1.5)
    assert (await checking).ok
    await hurried.close()
