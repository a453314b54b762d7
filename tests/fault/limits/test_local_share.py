"""Redis dies, hangs or refuses, and a plan has a local share: what is let in, and where it is counted."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
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
from support.redis_reader import read_scope, read_usage
from support.servers.valkey import Valkey
from support.servers.valkey_cluster import running_cluster
from support.waiting import until
from tokenyard.core.admission import Admitted
from tokenyard.core.budgets import wallet
from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits, LocalShare, Principal
from tokenyard.core.redis_keys import bucket_of, bucket_tag, holds, ready
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.holds import key_of
from tokenyard.limits.outage_admission import OutageAdmission
from tokenyard.metering.events import Outcome, Settled
from tokenyard.storage.redis import connect_redis

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)
DEADLINE_S = 20.0
COST = NanoDollars(3)
AMOUNT = 10
HALF = LocalShare(percent=50, spend=NanoDollars(1_000))
LIMITS = Limits(requests_per_minute=20, tokens_per_minute=10_000, concurrency=20)
CALLER = principal(key=LIMITS, local_share=HALF)


class Gateway:
    """The admission of one process, and what it counts."""

    def __init__(self, redis: Redis, folder: Path, *organizations: OrganizationId) -> None:
        budgets = BudgetTable()
        for organization in organizations or (ORGANIZATION,):
            budgets.set(wallet(organization), 10**9)
        self.registry = CollectorRegistry()
        self.redis_admission = RedisAdmission(
            redis, budgets.load, spool_folder=folder / "spool", lease_ms=3_000, renewal_ms=200
        )
        self.admission = OutageAdmission(self.redis_admission, SystemClock(), self.registry)

    async def admit(self, caller: Principal = CALLER) -> Admitted:
        return await self.admission.admit(admission_request(caller, amount=AMOUNT))

    async def settle(self, admitted: Admitted, outcome: Outcome = Outcome.COMPLETED) -> None:
        await self.admission.settle(settled(admitted.claims, outcome=outcome), COST)

    def counted(self, outcome: str) -> int:
        found = self.registry.get_sample_value("tokenyard_local_share_requests_total", {"outcome": outcome})
        return int(found or 0)


@asynccontextmanager
async def running(redis: Redis, folder: Path) -> AsyncIterator[Gateway]:
    """A process that has met Redis."""
    gateway = Gateway(redis, folder)
    async with gateway.redis_admission:
        await gateway.settle(await gateway.admit())
        yield gateway


@pytest.fixture
async def gateway(client: Redis, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(client, tmp_path) as made:
        yield made


async def test_what_was_let_in_is_held_and_charged_when_redis_is_back_each_once(
    server: Valkey, client: Redis, gateway: Gateway
) -> None:
    await asyncio.to_thread(server.kill)
    before_ms = time.time_ns() // 1_000_000
    ended, left, runs_on = [await gateway.admit() for _ in range(3)]
    assert before_ms <= ended.claims.admitted_at_ms <= time.time_ns() // 1_000_000
    assert ended.claims.budgets == (WALLET,)
    assert ended.rates.headers() == {}
    await gateway.settle(ended)
    await gateway.settle(left, Outcome.CLIENT_LEFT)
    assert gateway.counted("granted") == 3
    await asyncio.to_thread(server.start)

    async def told() -> bool:
        figures = await read_budget(client, BUCKET, WALLET)
        return (figures.held, figures.pending) == (AMOUNT, 2 * COST + AMOUNT)

    await until(told, "one hold, and what the others cost", limit_s=DEADLINE_S)
    assert await client.zcard(holds(BUCKET)) == 1
    scope = await read_scope(client, BUCKET, KEY)
    assert scope.slots == 1
    assert scope.sum("rpm") == 2, "the one before, and the one that runs on"

    await gateway.settle(await gateway.admit())
    assert gateway.counted("granted") == 3, "Redis lets in again"
    await gateway.settle(runs_on)
    await gateway.settle(runs_on)
    assert await client.zcard(holds(BUCKET)) == 0
    assert (await read_scope(client, BUCKET, KEY)).slots == 0
    known = await read_pending(client, BUCKET, WALLET)
    assert {key_of(one.claims) for one in (ended, left, runs_on)} <= known.keys()
    assert known[key_of(left.claims)] == AMOUNT
    events = [event for event in await read_usage(client, ORGANIZATION) if isinstance(event, Settled)]
    attempts = [event.claims.attempt for event in events]
    assert len(attempts) == len(set(attempts)) == 5
    assert {event.claims.admitted_at_ms for event in events} >= {ended.claims.admitted_at_ms}


async def test_a_share_that_is_used_up_is_as_before(server: Valkey, gateway: Gateway) -> None:
    await asyncio.to_thread(server.kill)
    for _ in range(10):
        await gateway.settle(await gateway.admit())
    with pytest.raises(Unavailable) as refused:
        await gateway.admit()
    assert refused.value.headers["retry-after"]
    assert (gateway.counted("granted"), gateway.counted("refused")) == (10, 1)


async def test_an_outage_is_logged_once(server: Valkey, gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    await asyncio.to_thread(server.kill)
    with caplog.at_level(logging.INFO, "tokenyard.limits.outage_admission"):
        for _ in range(3):
            await gateway.settle(await gateway.admit())
    assert [record.name for record in caplog.records].count("tokenyard.limits.outage_admission") == 1


async def test_who_has_no_share_is_refused(server: Valkey, gateway: Gateway) -> None:
    await asyncio.to_thread(server.kill)
    with pytest.raises(Unavailable):
        await gateway.admit(principal(key=LIMITS))
    assert (gateway.counted("granted"), gateway.counted("refused")) == (0, 0)


async def test_a_redis_that_hangs_is_away(server: Valkey, gateway: Gateway) -> None:
    with server.paused():
        await gateway.settle(await gateway.admit())
    assert gateway.counted("granted") == 1


async def test_a_process_that_never_met_redis_grants_nothing(server: Valkey, client: Redis, tmp_path: Path) -> None:
    await asyncio.to_thread(server.kill)
    gateway = Gateway(client, tmp_path)
    async with gateway.redis_admission:
        with pytest.raises(Unavailable):
            await gateway.admit()
        assert gateway.counted("refused") == 1


async def test_a_redis_that_is_not_loaded_is_not_away(client: Redis, gateway: Gateway) -> None:
    await client.delete(ready(BUCKET))
    with pytest.raises(Unavailable):
        await gateway.admit()
    assert (gateway.counted("granted"), gateway.counted("refused")) == (0, 0)


async def test_a_redis_without_memory_is_not_away(client: Redis, gateway: Gateway) -> None:
    await client.config_set("maxmemory", 1)
    with pytest.raises(Unavailable):
        await gateway.admit()
    await client.config_set("maxmemory", 0)
    assert (gateway.counted("granted"), gateway.counted("refused")) == (0, 0)


async def test_a_redis_that_wants_another_password_is_not_away(client: Redis, gateway: Gateway) -> None:
    await client.config_set("requirepass", "another")
    await client.connection_pool.disconnect()
    with pytest.raises(Unavailable):
        await gateway.admit()
    assert (gateway.counted("granted"), gateway.counted("refused")) == (0, 0)


async def test_the_amount_is_given_anew_once_redis_knows_all_and_lets_in(
    server: Valkey, client: Redis, gateway: Gateway
) -> None:
    dear = principal(local_share=LocalShare(50, NanoDollars(AMOUNT)))
    for _ in range(2):
        await asyncio.to_thread(server.kill)
        first = await gateway.admit(dear)
        with pytest.raises(Unavailable):
            await gateway.admit(dear)
        await asyncio.to_thread(server.start)
        await gateway.settle(await gateway.admit(dear))
        await gateway.admission.settle(settled(first.claims), NanoDollars(AMOUNT))

        async def known() -> bool:
            return gateway.redis_admission.delivered

        await until(known, "nothing waits on disk", limit_s=DEADLINE_S)
        await gateway.settle(await gateway.admit(dear))
    assert gateway.counted("granted") == 2


async def test_a_shard_that_is_away_is_made_up_for_and_no_other(tmp_path: Path) -> None:
    names = [OrganizationId(f"org_{number}") for number in range(20)]
    callers = {name: principal(organization=LIMITS, organization_id=name, local_share=HALF) for name in names}
    with running_cluster(tmp_path) as cluster:
        client = connect_redis(cluster.url)
        await open_buckets(client)
        gateway = Gateway(client, tmp_path, *names)
        shards = {name: cluster.number_of(bucket_tag(bucket_of(name))) for name in names}
        hit = [name for name in names if shards[name] == shards[names[0]]]
        async with gateway.redis_admission:
            for name in names:
                await gateway.settle(await gateway.admit(callers[name]))
            dead = cluster.primaries[shards[names[0]]]
            await asyncio.to_thread(dead.kill)
            for name in names:
                await gateway.settle(await gateway.admit(callers[name]))
            assert gateway.counted("granted") == len(hit)
            await asyncio.to_thread(cluster.mark_down, dead)
            for name in names:
                await gateway.settle(await gateway.admit(callers[name]))
            assert gateway.counted("granted") == 2 * len(hit)
        await client.aclose()
