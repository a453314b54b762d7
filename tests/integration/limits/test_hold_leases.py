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
from support.redis_reader import as_bytes, read_figures, read_hash, read_scope, read_usage
from tokenyard.core.budgets import wallet
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.core.redis_keys import bucket_of, budget, hold, holds, pending, usage_stream
from tokenyard.core.usage import MeterClaims
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.holds import key_of
from tokenyard.limits.sweeper import BATCH, Sweeper
from tokenyard.metering.events import HoldExpired, Settled

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)
CALLER = principal(key=Limits(requests_per_minute=100, tokens_per_minute=1000, concurrency=5))


async def figures(redis: Redis) -> dict[str, int]:
    return await read_figures(redis, budget(BUCKET, WALLET))


async def hold_members(redis: Redis) -> list[bytes]:
    return [as_bytes(member) for member in await redis.zrange(holds(BUCKET), 0, -1)]


async def hold_keys(redis: Redis) -> list[str]:
    return sorted(as_bytes(key).decode() for key in await redis.keys("*:hold:*"))


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
    held: int | None
    slots: int
    requests: int
    tokens: int
    holds: list[bytes]
    records: dict[str, dict[bytes, bytes]]


async def snapshot(redis: Redis) -> HoldState:
    """What limits keep of the open holds, without what differs from moment to moment."""
    counts = await read_scope(redis, BUCKET, KEY)
    return HoldState(
        held=(await figures(redis)).get("held"),
        slots=counts.slots,
        requests=counts.sum("rpm"),
        tokens=counts.sum("tpm"),
        holds=await hold_members(redis),
        records={key: await read_hash(redis, key) for key in await hold_keys(redis)},
    )


async def admit(admission: RedisAdmission, redis: Redis) -> MeterClaims:
    claims = (await admission.admit(admission_request(CALLER))).claims
    await admission.renew()
    return claims


async def test_holds_rebuild_themselves_after_redis_lost_all(admission: RedisAdmission, redis: Redis) -> None:
    claims = await admit(admission, redis)
    hold_key = f"*:hold:{key_of(claims)}"
    await admission.settle(settled(await admit(admission, redis)), NanoDollars(1))
    before = await snapshot(redis)
    await redis.flushall()
    await open_buckets(redis)
    await admission.renew()
    after = await snapshot(redis)
    # The lost hold knew its moment of admission only beside its claims; the rebuilt one has it in both.
    (name,) = await redis.keys(hold_key)
    rebuilt = msgspec.json.decode((await redis.hgetall(name))[b"claims"], type=MeterClaims)
    assert rebuilt == claims
    for kept in (before, after):
        for record in kept.records.values():
            del record[b"claims"]
    # What the settled request used is forgotten with its window.
    assert (before.requests, before.tokens, after.requests, after.tokens) == (2, 17, 1, 10)
    assert replace(before, requests=1, tokens=10) == after
    await admission.settle(settled(claims), NanoDollars(5))
    assert (await figures(redis)) == {"held": 0, "pending": 5}


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
    assert (await figures(redis))["held"] == 0
    assert await redis.zcard(holds(BUCKET)) == 0


async def test_expiry_releases_and_errs_to_refusing(admission: RedisAdmission, redis: Redis, sweeper: Sweeper) -> None:
    claims = await admit(admission, redis)
    await sweeper.sweep()
    assert await redis.zcard(holds(BUCKET)) == 1  # its lease runs

    await end_leases(redis)
    await sweeper.sweep()
    await sweeper.sweep()
    assert await redis.zcard(holds(BUCKET)) == 0
    assert await redis.keys("*:hold:*") == []
    assert (await read_scope(redis, BUCKET, KEY)).slots == 0
    assert (await figures(redis)) == {"ledger": 1000, "version": 1, "held": 0, "pending": 100}
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
    assert (await figures(redis))["pending"] == 30
    assert await redis.hgetall(pending(BUCKET, WALLET)) == {key_of(claims).encode(): b"30"}
    events = await read_usage(redis, ORGANIZATION)
    assert [type(event) for event in events] == [HoldExpired, Settled]


async def test_a_gateway_that_wakes_up_late_takes_its_hold_again(
    admission: RedisAdmission, redis: Redis, sweeper: Sweeper
) -> None:
    claims = await admit(admission, redis)
    await end_leases(redis)
    await sweeper.sweep()
    await admission.renew()
    assert (await figures(redis))["held"] == 100
    await admission.settle(settled(claims), NanoDollars(30))
    assert (await figures(redis)) == {"ledger": 1000, "version": 1, "held": 0, "pending": 30}


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
    assert (await figures(redis))["pending"] == 0
    assert await redis.hgetall(pending(BUCKET, WALLET)) == {}
    await admission.settle(settled(claims), NanoDollars(30))
    assert (await read_scope(redis, BUCKET, KEY)).sum("tpm") == 7
    assert (await figures(redis)) == {"ledger": 1000, "version": 1, "held": 0, "pending": 30}


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
    (damaged, _) = sorted(await redis.keys("*:hold:*"))
    await redis.hset(damaged, "claims", "{")
    await end_leases(redis)
    await sweeper.sweep()
    assert await redis.keys("*:hold:*") == [damaged]


async def test_any_number_of_damaged_holds_does_not_stop_the_others(
    admission: RedisAdmission, redis: Redis, sweeper: Sweeper
) -> None:
    await admit(admission, redis)
    await end_leases(redis)
    for number in range(BATCH):
        await redis.hset(hold(BUCKET, f"damaged_{number}"), "claims", "{")
        await redis.zadd(holds(BUCKET), {f"damaged_{number}": 0})
    await sweeper.sweep()
    await sweeper.sweep()
    assert (await figures(redis))["pending"] == 100
    assert await redis.zcard(holds(BUCKET)) == BATCH


async def test_many_holds_are_renewed_in_batches(admission: RedisAdmission, redis: Redis, budgets: BudgetTable) -> None:
    for _ in range(250):
        await admission.admit(admission_request(principal(), amount=1))
    await redis.flushall()
    await admission.renew()
    assert (await figures(redis)) == {"held": 250}
    assert await redis.zcard(holds(BUCKET)) == 250
