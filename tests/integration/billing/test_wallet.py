"""Credit is granted once, and reaches the live budget."""

import asyncio

import pytest
from redis.asyncio import Redis

from support.billing.stand import ACME, balance, budget_outbox, journal_sum, live_budget, rows
from support.money.live_budgets import put_budget
from tokenyard.core.budgets import wallet as wallet_name
from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import Conflict, InvalidRequest
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard.webhooks.events import write_event
from tokenyard_billing.tables import CreditGrant
from tokenyard_billing.wallets.store import MAX_GRANT, OpeningCredit, Wallet


def make(database: Database, redis: Redis) -> Wallet:
    return Wallet(database, budget_outbox(database, redis), write_event, SystemClock())


async def grant(wallet: Wallet, amount: int, key: str) -> None:
    await wallet.grant(ACME, NanoDollars(amount), reason="paid", actor="key_op", idempotency_key=key)


async def test_the_same_idempotency_key_grants_once(database: Database, redis: Redis) -> None:
    wallet = make(database, redis)
    await asyncio.gather(*(grant(wallet, 500, "a") for _ in range(5)))
    await grant(wallet, 70, "b")
    assert await balance(database, ACME) == 570
    assert await balance(database, ACME, "granted") == -570
    assert await journal_sum(database) == 0
    assert len(await rows(database, CreditGrant)) == 2
    assert [found.amount for found in await wallet.grants(ACME, limit=9)] == [70, 500]
    with pytest.raises(Conflict):
        await grant(wallet, 501, "a")


@pytest.mark.parametrize("amount", [0, -1, 10**18])
async def test_an_amount_that_makes_no_sense_is_refused(database: Database, redis: Redis, amount: int) -> None:
    with pytest.raises(InvalidRequest):
        await grant(make(database, redis), amount, "a")


async def test_a_grant_reaches_a_wallet_that_redis_has(database: Database, redis: Redis) -> None:
    wallet = make(database, redis)
    await put_budget(redis, bucket_of(ACME), wallet_name(ACME), BudgetFigures(0, 0, pending=5))
    await grant(wallet, 500, "a")
    assert await live_budget(redis, ACME) == {"ledger": 500, "version": 1, "pending": 5, "held": 0}


async def test_a_grant_stands_when_redis_is_away(database: Database) -> None:
    away = connect_redis("redis://127.0.0.1:1/0")
    await grant(make(database, away), 500, "a")
    await away.aclose()
    assert await balance(database, ACME) == 500


async def test_the_opening_credit_is_given_once(database: Database, redis: Redis) -> None:
    opening = OpeningCredit(make(database, redis), "5")
    await opening.created(ACME)
    await opening.created(ACME)
    assert await balance(database, ACME) == 5 * 10**9
    await OpeningCredit(make(database, redis), "0").created(ACME)


async def test_no_balance_leaves_64_bits(database: Database, redis: Redis) -> None:
    wallet = make(database, redis)
    for number in range(10):
        await grant(wallet, MAX_GRANT, f"{number}")
    with pytest.raises(InvalidRequest, match="in all"):
        await grant(wallet, 1, "too much")
    await grant(wallet, MAX_GRANT, "9")  # the same grant again is still answered
    assert await balance(database, ACME) == 10 * MAX_GRANT
    assert await journal_sum(database) == 0
