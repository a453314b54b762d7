"""A primary is lost under load: behind Sentinel, in a cluster with replicas, and in one without.

What may be lost is what the old primary acknowledged and had not yet passed on. So of every limit and budget no more
is spent than it allows and what was let in during the last moment before; and the books are exact all the same, since
gateways that live send what they settled last again (the decision record on packed windows says it all).
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from support.billing.stand import RATE, budget_outbox, charges, claims, live_budget, reconciler, settled, usage, worker
from support.fakes.admission_requests import open_buckets
from support.redis_reader import read_scope
from support.servers.valkey import Valkey
from support.servers.valkey_cluster import ValkeyCluster, running_cluster
from support.servers.valkey_sentinel import running_sentinels
from support.waiting import until
from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.core.admission import AdmissionRequest
from tokenyard.core.budgets import budgets_of, wallet
from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import BudgetInUse, QuotaExceeded, RateLimited, Unavailable
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId, request_of
from tokenyard.core.money import NanoDollars, inference_cost
from tokenyard.core.principal import Limits, Principal, ScopedLimits
from tokenyard.core.redis_keys import bucket_of, bucket_tag, holds
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.sweeper import Sweeper
from tokenyard.storage.database import Base, Database
from tokenyard.storage.redis import connect_redis, current_run
from tokenyard.webhooks.events import write_event
from tokenyard_billing.wallets.budgets import SqlBudgets
from tokenyard_billing.wallets.store import Wallet

LOSSES = int(os.environ.get("FAILOVERS", "1"))
USED = usage(10, 5)
COST = inference_cost(RATE, USED)
HELD = NanoDollars(2 * COST)
TOKENS = 20
PHASE = 50  # requests of each organization between two events
BEHIND_S = 1.5  # how far a replica is behind when it takes over
MARGIN_S = 0.2
APPEND_DELAY_S = 2.0  # for so long a server that waits for its disk may hold back what it appends to its file
DEADLINE_S = 60.0
CLIENTS = 4  # of each organization
BY_TOKENS = [OrganizationId("org_1"), OrganizationId("org_2")]
BY_SPENDING = [OrganizationId("org_3"), OrganizationId("org_4")]
TENANTS = BY_TOKENS + BY_SPENDING
ROOMY = 10**12


class Loss(NamedTuple):
    """From when on the primary's replica was behind, and when the primary was lost; monotonic seconds."""

    begin: float
    end: float


class Tenants:
    """Requests without end of some organizations, through two gateways; remembers what was let in and settled."""

    def __init__(self, gateways: Sequence[RedisAdmission]) -> None:
        self._gateways = gateways
        self.admitted: dict[OrganizationId, list[float]] = {name: [] for name in TENANTS}
        self.settled: dict[OrganizationId, list[str]] = {name: [] for name in TENANTS}
        self.away = Counter[str]()
        self.refused = Counter[str]()
        # What the keys may use in a day, and spend in a month; lowered at the end.
        self.tokens = dict.fromkeys(TENANTS, ROOMY)
        self.spending = dict.fromkeys(TENANTS, ROOMY)
        self.stopping = False
        self._number = 0

    async def client(self, organization: OrganizationId) -> None:
        project, key = ProjectId(f"proj_{organization}"), ApiKeyId(f"key_{organization}")
        let_in, done = self.admitted[organization], self.settled[organization]
        while not self.stopping:
            self._number += 1
            made = claims(f"req{self._number}", 1, organization, project=project, key=key, admitted_at_ms=0, budgets=())
            limits = Limits(tokens_per_day=self.tokens[organization], concurrency=CLIENTS)
            caller = Principal(organization, project, key, 1, (ScopedLimits("key", key, limits),))
            spending: dict[str, NanoDollars] = {key: NanoDollars(self.spending[organization])}
            budgets = budgets_of(organization, spending, SystemClock().now_ms())
            gateway = self._gateways[self._number % len(self._gateways)]
            try:
                admitted = await gateway.admit(AdmissionRequest(caller, made, TOKENS, HELD, budgets))
            except Unavailable:
                self.away[organization] += 1
                await asyncio.sleep(0.05)
                continue
            except (RateLimited, QuotaExceeded, BudgetInUse):
                self.refused[organization] += 1
                await asyncio.sleep(0.05)
                continue
            let_in.append(time.monotonic())
            await asyncio.sleep(0.01)
            await gateway.settle(settled(admitted.claims, USED), COST)
            done.append(request_of(admitted.claims.attempt))

    def lost(self, organization: OrganizationId, losses: Sequence[Loss]) -> int:
        """Return how many were let in while no replica listened any more, or what they did was on its way."""
        return sum(
            any(loss.begin - MARGIN_S <= at <= loss.end + MARGIN_S for loss in losses)
            for at in self.admitted[organization]
        )


class FailoverStand:
    """Two gateways and a worker over one Redis and one database."""

    def __init__(self, url: str, database: Database, folder: Path) -> None:
        self.database = database
        self.clients: list[Redis] = [connect_redis(url) for _ in range(3)]
        self.redis = self.clients[0]
        self.outbox = budget_outbox(database, self.redis)
        self.worker = worker(database, self.redis)
        self.sweeper = Sweeper(self.redis, renewal_ms=100, before=self.outbox.step)
        load = SqlBudgets(database).load
        self.gateways = [
            RedisAdmission(redis, load, spool_folder=folder / f"spool-{number}", lease_ms=10_000, renewal_ms=500)
            for number, redis in enumerate(self.clients[1:])
        ]
        self.tenants = Tenants(self.gateways)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> Self:
        await open_buckets(self.redis)
        credit = Wallet(self.database, self.outbox, write_event, SystemClock())
        for name in TENANTS:
            await credit.grant(name, NanoDollars(ROOMY), reason="paid", actor="op", idempotency_key="first")
            for _ in range(CLIENTS):
                self._tasks.append(asyncio.create_task(self.tenants.client(name)))
        self._tasks.append(asyncio.create_task(self.work()))
        for gateway in self.gateways:
            await gateway.__aenter__()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self.tenants.stopping = self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for gateway in self.gateways:
            await gateway.__aexit__()
        for client in self.clients:
            await client.aclose()

    async def go_on(self, *organizations: OrganizationId) -> None:
        """Wait until another phase of requests is settled."""
        before = {name: len(self.tenants.settled[name]) for name in organizations or TENANTS}

        async def done() -> bool:
            return all(len(self.tenants.settled[name]) >= count + PHASE for name, count in before.items())

        await until(
            done, f"requests to go on, {before}, {self.tenants.away}, {self.tenants.refused}", limit_s=DEADLINE_S
        )

    async def end(self, losses: Sequence[Loss]) -> None:
        """Let everybody come to a limit and all come to rest; then check."""
        tenants = self.tenants
        for name in TENANTS:
            allowed = len(tenants.settled[name]) + 2 * PHASE
            if name in BY_TOKENS:
                tenants.tokens[name] = allowed * USED.total_tokens
            else:
                tenants.spending[name] = allowed * COST
        tenants.refused.clear()

        async def all_at_their_limits() -> bool:
            return min(tenants.refused[name] for name in TENANTS) > 3 * CLIENTS

        await until(all_at_their_limits, "everybody to come to a limit", limit_s=DEADLINE_S)
        tenants.stopping = True
        await self.rest()
        await self.check(losses)

    async def work(self) -> None:
        """Do what a worker's loops do, whatever fails."""
        while not self._stopping:
            for step in (self.outbox.step, self.worker.consumer.step, self.sweeper.sweep):
                try:
                    await step()
                except (RedisError, OSError):
                    continue
            await asyncio.sleep(0.05)

    async def rest(self) -> None:
        """Wait until everything that was settled is charged and nothing is held."""

        async def charged() -> bool:
            found = await charges(self.database)
            return all(set(keys) <= found.keys() for keys in self.tenants.settled.values())

        await until(charged, "every settled request to be charged", limit_s=DEADLINE_S)
        for organization in TENANTS:

            async def at_rest(organization: OrganizationId = organization) -> bool:
                live = await live_budget(self.redis, organization)
                held = await self.redis.zcard(holds(bucket_of(organization)))
                return (live["pending"], live["held"], held) == (0, 0, 0)

            await until(at_rest, "nothing to be pending or held", limit_s=DEADLINE_S)
        self._stopping = True

    async def check(self, losses: Sequence[Loss]) -> None:
        """The books are exact, and nothing came beyond its limit but what may have been lost."""
        found = await charges(self.database)
        for name in TENANTS:
            keys, lost = self.tenants.settled[name], self.tenants.lost(name, losses)
            ours = {key: row for key, row in found.items() if row.organization == name}
            assert ours.keys() == set(keys)
            assert {row.amount for row in ours.values()} == {COST}
            left = (await SqlBudgets(self.database).load(name, wallet(name))).ledger
            assert left == ROOMY - len(keys) * COST
            assert len(keys) * COST <= self.tenants.spending[name] + lost * HELD
            assert len(keys) * USED.total_tokens <= self.tenants.tokens[name] + lost * TOKENS
            counted = await read_scope(self.redis, bucket_of(name), f"key_{name}")
            assert counted.slots == 0
            assert len(keys) - lost <= counted.sum("tpd") / USED.total_tokens <= len(keys)
        result = await reconciler(self.database, self.redis).reconcile()
        assert [one for one in result.differences if one.broken] == []


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    import_all_tables()
    opened = Database(f"sqlite+aiosqlite:///{tmp_path / 'books.db'}")
    async with opened.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield opened
    await opened.close()


async def behind(primary: Valkey) -> Loss:
    """Let the primary's replica fall behind."""
    begin = time.monotonic()
    await asyncio.to_thread(primary.cut_off_replicas)
    await asyncio.sleep(BEHIND_S)
    return Loss(begin, time.monotonic())


@contextmanager
def lost(server: Valkey, how: str) -> Iterator[None]:
    """Lose a server: it dies and comes back, or hangs and wakes up believing that it is the primary still."""
    if how == "hangs":
        with server.paused():
            yield
        server.let_replicas_follow()
        return
    server.kill()
    try:
        yield
    finally:
        server.start()


async def _is_another(redis: Redis, run: str) -> bool:
    return (await current_run(redis)).id != run


@pytest.mark.parametrize("how", ["dies", "hangs"])
async def test_sentinels_name_another_primary(how: str, database: Database, tmp_path: Path) -> None:
    losses = []
    with running_sentinels(tmp_path) as watched:
        async with FailoverStand(watched.url, database, tmp_path) as stand:
            for number in range(LOSSES):
                await stand.go_on()
                run, primary = await current_run(stand.redis), watched.servers[number % 2]
                losses.append(await behind(primary))
                with lost(primary, how):
                    await stand.go_on()
                    # A sentinel may still name the one that was lost.
                    await until(partial(_is_another, stand.redis, run.id), "another primary", limit_s=DEADLINE_S)
                await asyncio.to_thread(watched.until_replicated)
            await stand.end(losses)


@pytest.mark.parametrize("how", ["dies", "hangs"])
async def test_a_cluster_fails_over_one_shard(how: str, database: Database, tmp_path: Path) -> None:
    losses = []
    with running_cluster(tmp_path, replicas=True) as cluster:
        async with FailoverStand(cluster.url, database, tmp_path) as stand:
            hit, spared = shards(cluster)
            for _ in range(LOSSES):
                await stand.go_on()
                away = {name: stand.tenants.away[name] for name in spared}
                primary = cluster.primary_of(bucket_tag(bucket_of(hit[0])))
                losses.append(await behind(primary))
                with lost(primary, how):
                    await stand.go_on()
                    assert {name: stand.tenants.away[name] for name in spared} == away
                await asyncio.to_thread(cluster.until_whole)
            await stand.end(losses)


async def test_a_shard_without_a_replica_is_missed_by_its_own_organizations_alone(
    database: Database, tmp_path: Path
) -> None:
    with running_cluster(tmp_path) as cluster:
        async with FailoverStand(cluster.url, database, tmp_path) as stand:
            hit, spared = shards(cluster)
            await stand.go_on()
            begin = time.monotonic() - APPEND_DELAY_S
            with lost(cluster.primary_of(bucket_tag(bucket_of(hit[0]))), "dies"):
                loss = Loss(begin, time.monotonic())
                await stand.go_on(*spared)
                assert all(stand.tenants.away[name] for name in hit)
                assert not any(stand.tenants.away[name] for name in spared)
            await stand.go_on(*hit)
            await stand.end([loss])


def shards(cluster: ValkeyCluster) -> tuple[list[OrganizationId], list[OrganizationId]]:
    """Return the organizations of one shard, and those of the others."""
    by_shard: dict[int, list[OrganizationId]] = {}
    for name in TENANTS:
        by_shard.setdefault(cluster.number_of(bucket_tag(bucket_of(name))), []).append(name)
    hit = by_shard.pop(cluster.number_of(bucket_tag(bucket_of(next(iter(TENANTS))))))
    return hit, [name for names in by_shard.values() for name in names]
