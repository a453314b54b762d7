"""What is kept for how long, and windows under clocks that jump."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.billing.busy_books import COST, USED, BusyBooks
from support.billing.stand import ACME, charges, live_budget, settled
from support.fakes.admission_requests import KEY, ORGANIZATION, BudgetTable, admission_request, principal
from support.fakes.admission_requests import settled as settled_as
from support.redis_reader import as_bytes, read_scope
from tokenyard.core.budgets import wallet
from tokenyard.core.ids import request_of
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.core.redis_keys import bucket_of, bucket_tag
from tokenyard.core.redis_keys import request as request_key
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.holds import admit_arguments, hold_of, limits_of
from tokenyard.limits.scripts import ScriptName, Scripts
from tokenyard.storage.database import Database

BUCKET = bucket_of(ORGANIZATION)
ALL = Limits(100, 1_000, 1_000, 10_000, 10, NanoDollars(10_000))
NOON_MS = 1_800_000_000_000
FIVE_MINUTES_MS = 300_000


async def test_what_belongs_to_a_request_a_caller_or_a_month_ends_by_itself(
    admission: RedisAdmission, redis: Redis, budgets: BudgetTable
) -> None:
    budgets.set(wallet(ORGANIZATION), 1_000)
    caller = principal(key=ALL, project=ALL, organization=ALL)
    admitted = await admission.admit(admission_request(caller))
    await admission.settle(settled_as(admitted.claims), NanoDollars(30))
    lasting = {
        as_bytes(key).decode().removeprefix(bucket_tag(BUCKET))
        for key in await redis.keys(f"*b{BUCKET:02d}*")
        if await redis.pttl(key) < 0
    }
    assert lasting == {":ready.2", ":usage", ":pending.2", f":budget.2:{wallet(ORGANIZATION)}"}
    mark = request_key(BUCKET, request_of(admitted.claims.attempt))
    assert 0 < await redis.pttl(mark) <= FIVE_MINUTES_MS


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_settlement_that_is_repeated_when_its_mark_is_gone_charges_nothing_more(
    database: Database, redis: Redis, tmp_path: Path
) -> None:
    async with BusyBooks(database, redis, tmp_path / "spool") as books:
        await books.grant()
        made = await books.admit("req_a")
        await books.settle(made)
        await books.worker.consumer.step()
        await redis.delete(request_key(bucket_of(ACME), "req_a"))
        await books.gateway.settle(settled(made, USED), COST)
        assert (await live_budget(redis, ACME))["pending"] == COST
        await books.worker.consumer.step()
        assert (await live_budget(redis, ACME))["pending"] == 0
        assert [row.amount for row in (await charges(database)).values()] == [COST]
        assert await books.broken() == set()


async def admit_at(redis: Redis, now_ms: int, limits: Limits) -> bytes:
    request = admission_request(principal(key=limits), amount=0)
    taken = hold_of(request, request.claims, limits_of(request))
    arguments = admit_arguments(request, taken, limits_of(request), lease_ms=30_000, now_ms=now_ms)
    reply = await Scripts(redis).run(ScriptName.ADMIT, bucket_tag(BUCKET), arguments)
    return as_bytes(reply[0])


async def test_a_clock_that_falls_back_forgets_nothing(
    admission: RedisAdmission, redis: Redis, budgets: BudgetTable
) -> None:
    budgets.set(wallet(ORGANIZATION), 1_000)
    await admission.admit(admission_request(principal(), amount=0))  # loads the budget
    three = Limits(requests_per_minute=3)
    assert [await admit_at(redis, NOON_MS + at, three) for at in (0, -7_000, 12_000)] == [b"ok"] * 3
    # Another primary's clock is behind: what counted goes on counting, for a minute after its own moment.
    assert [await admit_at(redis, NOON_MS + at, three) for at in (5_000, -20_000, 50_000)] == [b"rate"] * 3
    assert await admit_at(redis, NOON_MS + 56_000, three) == b"ok"
    assert (await read_scope(redis, BUCKET, KEY)).sum("rpm") == 3


async def test_a_clock_that_was_far_ahead_leaves_nothing_behind(
    admission: RedisAdmission, redis: Redis, budgets: BudgetTable
) -> None:
    budgets.set(wallet(ORGANIZATION), 1_000)
    await admission.admit(admission_request(principal(), amount=0))
    one = Limits(requests_per_minute=1)
    assert await admit_at(redis, NOON_MS + 10**12, one) == b"ok"
    assert [await admit_at(redis, NOON_MS, one), await admit_at(redis, NOON_MS + 1, one)] == [b"ok", b"rate"]
