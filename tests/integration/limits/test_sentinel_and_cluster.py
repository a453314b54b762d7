"""Everything that goes through Redis, on a primary that Sentinel names and on a cluster of three."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.billing.busy_books import BusyBooks
from support.fakes.admission_requests import BudgetTable, admission_request, open_buckets, principal, settled
from support.money.live_budgets import read_budget
from support.redis_reader import as_bytes, read_scope, read_usage
from support.servers.valkey_cluster import running_cluster
from support.servers.valkey_sentinel import running_sentinels
from tokenyard.catalog.replicas.registry import ReplicaRegistry, ReplicaSnapshot
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.core.budgets import wallet
from tokenyard.core.errors import RateLimited
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.core.redis_keys import bucket_of, holds
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.budget_reader import RedisBudgetReader
from tokenyard.limits.holds import key_of
from tokenyard.limits.revisions import RedisRevisions
from tokenyard.limits.sweeper import Sweeper
from tokenyard.metering.cluster import ClusterRedis
from tokenyard.metering.events import Settled
from tokenyard.storage.change_feed import ChangeFeed, publish
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis, current_run, redis_time_ms

ORGANIZATIONS = [OrganizationId(f"org_{number}") for number in range(40)]  # on every shard
COST = NanoDollars(3)


@pytest.fixture(scope="module", params=["sentinel", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    with (running_sentinels if request.param == "sentinel" else running_cluster)(folder) as servers:
        yield servers.url


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    client = connect_redis(url)
    await client.flushall()
    await open_buckets(client)
    yield client
    await client.aclose()


@pytest.fixture
def budgets() -> BudgetTable:
    table = BudgetTable()
    for organization in ORGANIZATIONS:
        table.set(wallet(organization), 1_000)
    return table


@pytest.fixture
async def admission(redis: Redis, budgets: BudgetTable, tmp_path: Path) -> RedisAdmission:
    return RedisAdmission(redis, budgets.load, spool_folder=tmp_path / "spool", lease_ms=30_000, renewal_ms=5_000)


async def test_requests_of_many_organizations_at_once(admission: RedisAdmission, redis: Redis) -> None:
    limits = Limits(requests_per_minute=5, tokens_per_day=1_000, concurrency=5)
    refused = Counter[str]()

    async def request(organization: OrganizationId) -> str | None:
        caller = principal(organization=limits, organization_id=organization)
        try:
            admitted = await admission.admit(admission_request(caller, amount=10))
        except RateLimited:
            refused[organization] += 1
            return None
        await admission.settle(settled(admitted.claims), COST)
        return key_of(admitted.claims)

    answers = await asyncio.gather(*(request(name) for name in ORGANIZATIONS for _ in range(7)))
    made = {name: answers[7 * place : 7 * place + 7] for place, name in enumerate(ORGANIZATIONS)}
    for organization, keys in made.items():
        let_in = [key for key in keys if key]
        assert (len(let_in), refused[organization]) == (5, 2)
        events = [event for event in await read_usage(redis, organization) if isinstance(event, Settled)]
        assert {key_of(event.claims) for event in events if event.claims.organization == organization} == set(let_in)
        figures = await read_budget(redis, bucket_of(organization), wallet(organization))
        assert (figures.held, figures.pending) == (0, 5 * COST)
        assert (await read_scope(redis, bucket_of(organization), organization)).sum("rpm") == 5


async def test_holds_are_renewed_swept_and_read_everywhere(admission: RedisAdmission, redis: Redis) -> None:
    for organization in ORGANIZATIONS:
        await admission.admit(admission_request(principal(organization_id=organization), amount=10))
    for organization in ORGANIZATIONS:
        await redis.delete(holds(bucket_of(organization)))
        for key in await redis.keys(f"*b{bucket_of(organization):02d}*:request:*"):
            await redis.delete(key)
    await admission.renew()
    buckets = {bucket_of(organization) for organization in ORGANIZATIONS}
    members = [await redis.zrange(holds(bucket), 0, -1) for bucket in buckets]
    assert sum(map(len, members)) == len(ORGANIZATIONS)
    for bucket, names in zip(buckets, members, strict=True):
        for name in names:
            await redis.zadd(holds(bucket), {as_bytes(name): 1})
    await Sweeper(redis, renewal_ms=0).sweep()
    assert [await redis.zcard(holds(bucket)) for bucket in buckets] == [0] * len(buckets)

    reader = RedisBudgetReader(redis)
    found = {budget.key.name async for part in reader.every_budget() for budget in part}
    assert found == {wallet(organization) for organization in ORGANIZATIONS}


async def test_changes_leases_and_lists_are_the_same_for_all(redis: Redis, url: str) -> None:
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    async with ChangeFeed(redis, {"kind": heard.put}), asyncio.timeout(10):
        assert await heard.get() is None
        await publish(redis, "kind", "subject")
        assert await heard.get() == "subject"
    one, other = (WorkLease(redis, "work", 10_000) for _ in range(2))
    assert [await one.take(), await other.take(), await one.take()] == [True, False, True]
    registry, snapshot = ReplicaRegistry(redis), ReplicaSnapshot((), at_ms=1, complete=True)
    await registry.publish(snapshot)
    assert await registry.read() == snapshot
    await RedisRevisions(redis).raise_to(ORGANIZATIONS[0], 3)
    assert await redis.ping()
    assert abs(await redis_time_ms(redis) / 1000 - time.time()) < 5
    again = connect_redis(url)
    assert (await current_run(again)).id == (await current_run(redis)).id
    await again.aclose()
    assert isinstance(redis, ClusterRedis) is url.startswith("redis+cluster")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_the_books_agree(redis: Redis, database: Database, tmp_path: Path) -> None:
    async with BusyBooks(database, redis, tmp_path / "spool") as books:
        await books.fill()
        assert await books.broken() == set()
        await books.worker.consumer.step()
        assert await books.broken() == set()
