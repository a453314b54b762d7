"""Renewal, loss of Redis, and expiry."""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import (
    KEY,
    ORGANIZATION,
    BudgetTable,
    admission_request,
    open_buckets,
    principal,
    settled,
)
from support.money.live_budgets import read_budget, read_pending
from support.redis_reader import as_bytes, read_scope, read_usage
from tokenyard.core.budgets import wallet
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.core.redis_keys import bucket_of, holds, request, usage_stream
from tokenyard.core.usage import MeterClaims
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.limits.holds import SETTLED, key_of
from tokenyard.limits.sweeper import BATCH, Sweeper
from tokenyard.metering.events import HoldExpired, Settled

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)
CALLER = principal(key=Limits(requests_per_minute=100, tokens_per_minute=1000, concurrency=5))


async def figures(redis: Redis) -> BudgetFigures:
    return await read_budget(redis, BUCKET, WALLET)


async def hold_members(redis: Redis) -> list[bytes]:
    return [as_bytes(member) for member in await redis.zrange(holds(BUCKET), 0, -1)]


async def hold_values(redis: Redis) -> dict[str, bytes]:
    """Return the value of every request that is not settled, by its name."""
    names = sorted(as_bytes(key).decode() for key in await redis.keys("*:request:*"))
    values = {name: as_bytes(await redis.get(name)) for name in names}
    return {name: value for name, value in values.items() if value != SETTLED}


async def end_leases(redis: Redis) -> None:
    for member in await hold_members(redis):
        await redis.zadd(holds(BUCKET), {member: 1})


@pytest.fixture(autouse=True)
def money(budgets: BudgetTable) -> None:
    budgets.set(WALLET, 1000)


@pytest.fixture
def sweeper(redis: Redis) -> Sweeper:
    return Sweeper(redis, renewal_ms=0)


@dataclass
class HoldState:
    held: int
    slots: int
    requests: int
    tokens: int
    holds: list[bytes]
    records: dict[str, bytes]


async def snapshot(redis: Redis) -> HoldState:
    """What limits keep of the open holds, but for their claims and what differs from moment to moment."""
    counts = await read_scope(redis, BUCKET, KEY)
    return HoldState(
        held=(await figures(redis)).held,
        slots=counts.slots,
        requests=counts.sum("rpm"),
        tokens=counts.sum("tpm"),
        holds=await hold_members(redis),
        records={name: value.rpartition(b"\n")[0] for name, value in (await hold_values(redis)).items()},
    )


async def admit(admission: RedisAdmission, redis: Redis) -> MeterClaims:
    claims = (await admission.admit(admission_request(CALLER))).claims
    await admission.renew()
    return claims


async def test_holds_rebuild_themselves_after_redis_lost_all(admission: RedisAdmission, redis: Redis) -> None:
    claims = await admit(admission, redis)
    await admission.settle(settled(await admit(admission, redis)), NanoDollars(1))
    before = await snapshot(redis)
    await redis.flushall()
    await open_buckets(redis)
    await admission.renew()
    after = await snapshot(redis)
    # The lost hold knew its moment of admission only beside its claims; the rebuilt one has it in both.
    [value] = (await hold_values(redis)).values()
    assert msgspec.json.decode(value.rpartition(b"\n")[2], type=MeterClaims) == claims
    # What the settled request used is forgotten with its window.
    assert (before.requests, before.tokens, after.requests, after.tokens) == (2, 17, 1, 10)
    assert replace(before, requests=1, tokens=10) == after
    await admission.settle(settled(claims), NanoDollars(5))
    assert (await figures(redis)) == BudgetFigures(pending=5)


async def test_renewing_twice_takes_nothing_more(admission: RedisAdmission, redis: Redis) -> None:
    await admit(admission, redis)
    before = await snapshot(redis)
    await admission.renew()
    assert await snapshot(redis) == before


async def test_renewal_never_revives_a_settled_request(redis: Redis, budgets: BudgetTable, tmp_path: Path) -> None:
    await open_buckets(redis)
    one, other = (
        RedisAdmission(redis, budgets.load, spool_folder=tmp_path, lease_ms=30_000, renewal_ms=5_000) for _ in range(2)
    )
    claims = (await one.admit(admission_request(CALLER))).claims
    await other.settle(settled(claims), NanoDollars(1))
    await one.renew()
    assert (await figures(redis)).held == 0
    assert await redis.zcard(holds(BUCKET)) == 0


async def test_expiry_releases_and_errs_to_refusing(admission: RedisAdmission, redis: Redis, sweeper: Sweeper) -> None:
    claims = await admit(admission, redis)
    await sweeper.sweep()
    assert await redis.zcard(holds(BUCKET)) == 1  # its lease runs

    await end_leases(redis)
    await sweeper.sweep()
    await sweeper.sweep()
    assert await redis.zcard(holds(BUCKET)) == 0
    assert await hold_values(redis) == {}
    assert (await read_scope(redis, BUCKET, KEY)).slots == 0
    assert (await figures(redis)) == BudgetFigures(1000, 1, pending=100)
    (event,) = await read_usage(redis, ORGANIZATION)
    assert isinstance(event, HoldExpired)
    assert event.claims == claims


async def test_a_late_settlement_replaces_what_expiry_left(
    admission: RedisAdmission, redis: Redis, sweeper: Sweeper
) -> None:
    claims = await admit(admission, redis)
    await end_leases(redis)
    await sweeper.sweep()
    await admission.settle(settled(claims), NanoDollars(30))
    assert (await figures(redis)).pending == 30
    assert await read_pending(redis, BUCKET, WALLET) == {key_of(claims): 30}
    events = await read_usage(redis, ORGANIZATION)
    assert [type(event) for event in events] == [HoldExpired, Settled]


async def test_a_gateway_that_wakes_up_late_takes_its_hold_again(
    admission: RedisAdmission, redis: Redis, sweeper: Sweeper
) -> None:
    claims = await admit(admission, redis)
    await end_leases(redis)
    await sweeper.sweep()
    await admission.renew()
    assert (await figures(redis)).held == 100
    await admission.settle(settled(claims), NanoDollars(30))
    assert (await figures(redis)) == BudgetFigures(1000, 1, pending=30)


async def test_a_hold_that_is_taken_again_after_its_expiry_counts_once(
    admission: RedisAdmission, redis: Redis, sweeper: Sweeper
) -> None:
    claims = await admit(admission, redis)
    before = await snapshot(redis)
    await end_leases(redis)
    await sweeper.sweep()
    await admission.renew()
    after = await snapshot(redis)
    assert (after.held, after.slots, after.requests, after.tokens) == (before.held, 1, 1, before.tokens)
    assert (await figures(redis)).pending == 0
    assert await read_pending(redis, BUCKET, WALLET) == {}
    await admission.settle(settled(claims), NanoDollars(30))
    assert (await read_scope(redis, BUCKET, KEY)).sum("tpm") == 7
    assert (await figures(redis)) == BudgetFigures(1000, 1, pending=30)


async def test_two_sweepers_expire_a_hold_once(admission: RedisAdmission, redis: Redis, sweeper: Sweeper) -> None:
    await admit(admission, redis)
    await end_leases(redis)
    await sweeper.sweep()
    await Sweeper(redis, renewal_ms=0).sweep()
    assert await redis.xlen(usage_stream(BUCKET)) == 1


async def test_nothing_expires_right_after_redis_came_back(admission: RedisAdmission, redis: Redis) -> None:
    await admit(admission, redis)
    await end_leases(redis)
    await Sweeper(redis, renewal_ms=10**9).sweep()
    assert await redis.zcard(holds(BUCKET)) == 1


async def test_a_damaged_hold_does_not_stop_the_others(
    admission: RedisAdmission, redis: Redis, sweeper: Sweeper
) -> None:
    await admit(admission, redis)
    await admit(admission, redis)
    ((damaged, value), _) = (await hold_values(redis)).items()
    await redis.set(damaged, value[:-1])
    await end_leases(redis)
    await sweeper.sweep()
    assert list(await hold_values(redis)) == [damaged]


async def test_any_number_of_damaged_holds_does_not_stop_the_others(
    admission: RedisAdmission, redis: Redis, sweeper: Sweeper
) -> None:
    await admit(admission, redis)
    await end_leases(redis)
    for number in range(BATCH):
        await redis.set(request(BUCKET, f"damaged_{number}"), "{")
        await redis.zadd(holds(BUCKET), {f"damaged_{number}": 0})
    await sweeper.sweep()
    await sweeper.sweep()
    assert (await figures(redis)).pending == 100
    assert await redis.zcard(holds(BUCKET)) == BATCH


async def test_many_holds_are_renewed_in_batches(admission: RedisAdmission, redis: Redis, budgets: BudgetTable) -> None:
    for _ in range(250):
        await admission.admit(admission_request(principal(), amount=1))
    await redis.flushall()
    await admission.renew()
    assert (await figures(redis)) == BudgetFigures(held=250)
    assert await redis.zcard(holds(BUCKET)) == 250
