"""Two gateways, two workers and a replica over one Valkey and one database, with death and time in the test's hands.

Nothing waits: a lease ends, and a report has been awaited long enough, when the test says so.
"""

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Self

import msgspec
from redis.asyncio import Redis
from sqlalchemy import delete, select, update

from support.fakes.admission_requests import open_buckets
from support.fakes.clock import FrozenClock
from support.money.model import Tenant, Told
from support.money.processes import GatewayProcess, MoneyProcess, ReplicaProcess, Surroundings, WorkerProcess
from support.redis_reader import as_bytes
from support.servers.valkey import Valkey
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits, Role
from tokenyard.core.redis_keys import bucket_of, holds, usage_stream
from tokenyard.storage.database import Base, Database
from tokenyard.storage.redis import connect_redis, current_run
from tokenyard.storage.tables import OutboxRow
from tokenyard.storage.transactional_outbox import not_carried
from tokenyard.tenancy.tables import ApiKeyRow, OrganizationRow, ProjectRow
from tokenyard_billing.tables import BucketLease, Charge, Consumer, OpenRequest, Reservation

PLENTY = Limits(tokens_per_minute=10**12, tokens_per_day=10**12, concurrency=1_000)
STRANGERS = OrganizationId("org_acme"), OrganizationId("org_globex")
"""Two organizations of different buckets."""


class MoneyStand:
    def __init__(self, valkey: Valkey, folder: Path, database_url: str) -> None:
        self.valkey = valkey
        self.redis: Redis = connect_redis(valkey.url)
        self.database = Database(database_url)
        self.clock = FrozenClock(time.time())
        self.told = Told()
        self._lives = 0
        self._around = Surroundings(valkey.url, database_url, folder, self.clock)
        self._safe = 0
        self.gateways = [GatewayProcess(self._around, f"gateway-{number}") for number in range(2)]
        self.replica = ReplicaProcess(self._around, "replica")
        self.workers = [WorkerProcess(self._around, self._new_name()) for _ in range(2)]

    async def __aenter__(self) -> Self:
        await self.redis.config_set("appendfsync", "no")  # so what was acknowledged stands in the file at once
        await self.redis.flushall()
        async with self.database.transaction() as session:
            for table in reversed(Base.metadata.sorted_tables):
                if table.name.startswith(("billing_", "storage_", "tenancy_")):
                    await session.execute(delete(table))
        await open_buckets(self.redis)
        await self.divide_buckets()
        for worker in self.workers:
            await worker.consume()
        self.keep()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.redis.aclose)
            stack.push_async_callback(self.database.close)
            for process in self.processes:
                stack.push_async_callback(process.kill)

    async def welcome(self, *organizations: OrganizationId, monthly_spend: int) -> None:
        """Begin with new tenants, whose project alone has no monthly limit; what was told to others is done with."""
        self.told.requests, self.told.jobs, self.told.unasked, self.told.redis_lost = {}, {}, {}, False
        self.told.tenants = [Tenant(organization) for organization in organizations]
        async with self.database.transaction() as session:
            for tenant in self.told.tenants:
                for row in tenancy_rows(tenant, monthly_spend):
                    session.add(row)
                    await session.flush()

    @property
    def buckets(self) -> set[int]:
        return {bucket_of(tenant.organization) for tenant in self.told.tenants}

    @property
    def processes(self) -> list[MoneyProcess]:
        return [*self.gateways, self.replica, *self.workers]

    # Death

    async def bury(self) -> None:
        """Start a new process for each that is dead."""
        for number, gateway in enumerate(self.gateways):
            if gateway.dead:
                self.gateways[number] = GatewayProcess(self._around, f"gateway-{number}")
                self.keep()
        if self.replica.dead:
            self.replica = ReplicaProcess(self._around, "replica")
            self.keep()
        for number, worker in enumerate(self.workers):
            if worker.dead:
                await self.worker_lease_ends(worker)
                self.workers[number] = WorkerProcess(self._around, self._new_name())

    async def kill(self, process: MoneyProcess) -> None:
        await process.kill()
        await self.bury()

    def _new_name(self) -> str:
        self._lives += 1
        return f"worker-{self._lives}"

    # Redis

    def keep(self) -> None:
        """From here on Redis' file is synced: what was acknowledged until now is never lost.

        Called also where an emitter died: an event that only it could send again is lost only where both lose power
        together, which the design allows.
        """
        self._safe = self.valkey.file_bytes

    async def redis_dies(self) -> None:
        """Kill Redis and bring it back without what it acknowledged since `keep`."""
        self.told.redis_lost = True
        self.valkey.kill_and_lose(self._safe)
        self.valkey.start()
        await self.redis.config_set("appendfsync", "no")

    # Time

    async def leases_end(self, *, of_the_living: bool) -> None:
        """End the leases of holds that nobody renews; with `of_the_living`, also of gateways that were too slow."""
        self.clock.advance(2)
        async with self.database.reading() as session:
            working = set(await session.scalars(select(Reservation.job).where(Reservation.state == "holding")))
        renewed = {one.id for one in self.told.open()}
        for bucket in self.buckets:
            for member in await self.redis.zrange(holds(bucket), 0, -1):
                name = as_bytes(member).decode()
                # Whoever reserves is long gone, or has given up, when the lease of its hold ends.
                if name in working or (name in renewed and not of_the_living):
                    continue
                await self.redis.zadd(holds(bucket), {name: 1})
                if name in self.told.requests:
                    self.told.requests[name].doubtful = True

    async def reports_are_overdue(self) -> None:
        """Let every missing report have been awaited long enough."""
        async with self.database.transaction() as session:
            decidable = update(OpenRequest).where(OpenRequest.deadline_ms.is_not(None))
            await session.execute(decidable.values(deadline_ms=1))
            await session.execute(update(OpenRequest).values(looked_at_ms=0))

    async def divide_buckets(self) -> None:
        """Let the workers learn of each other, and each take its share."""
        for _ in range(2):
            for worker in self.workers:
                worker.billing.leases._renew_at = 0.0
                await worker.billing.leases.hold({})

    async def worker_lease_ends(self, worker: WorkerProcess) -> None:
        """Let all buckets of a worker be free, and nobody count on it."""
        async with self.database.transaction() as session:
            mine = update(BucketLease).where(BucketLease.holder == worker.name)
            await session.execute(mine.values(lease_until_ms=0))
            await session.execute(update(Consumer).where(Consumer.name == worker.name).values(alive_until_ms=0))

    # What is there

    async def charged(self) -> set[str]:
        async with self.database.reading() as session:
            return set(await session.scalars(select(Charge.charge_key)))

    async def unfinished(self) -> list[str]:
        """Name what still waits: events, requests, holds, messages, half reservations."""
        found = []
        for bucket in self.buckets:
            if count := await self.redis.zcard(holds(bucket)):
                found.append(f"{count} holds")
            for group in await self.redis.xinfo_groups(usage_stream(bucket)):
                if group["pending"] or group["lag"]:
                    found.append(f"{group['pending']} events unacknowledged, {group['lag']} unread")
        waiting = (
            select(OpenRequest.request),
            select(OutboxRow.payload).where(not_carried((await current_run(self.redis)).id)),
            select(Reservation.job).where(Reservation.state == "holding"),
        )
        async with self.database.reading() as session:
            for query in waiting:
                found += await session.scalars(query)
        return found


def neighbours(number: int) -> tuple[OrganizationId, OrganizationId]:
    """Return two organizations of one bucket; of another number, others of the same."""
    first = bucket_of(STRANGERS[0])
    found = (name for at in count() if bucket_of(name := OrganizationId(f"org_{at}x")) == first)
    names = [next(found) for _ in range(2 * number + 2)]
    return names[-2], names[-1]


def tenancy_rows(tenant: Tenant, monthly_spend: int) -> Iterator[Base]:
    """Yield the rows of an organization, its project and its keys; a key's hash is its id."""
    limited = msgspec.structs.replace(PLENTY, monthly_spend=NanoDollars(monthly_spend))
    yield OrganizationRow(
        id=tenant.organization,
        slug=tenant.organization,
        name="",
        default_project_id=tenant.project,
        weight=1,
        limits=limited,
        created_at=1,
    )
    yield ProjectRow(id=tenant.project, organization_id=tenant.organization, name="", limits=PLENTY, created_at=1)
    for key in tenant.keys:
        yield ApiKeyRow(
            id=key,
            organization_id=tenant.organization,
            project_id=tenant.project,
            role=Role.TENANT,
            name="",
            last4="",
            hash=key,
            pepper_version=1,
            limits=limited,
            created_at=1,
        )
