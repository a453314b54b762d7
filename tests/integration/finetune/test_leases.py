"""SQL goes away while a worker has a job: for a moment, and for longer than the lease."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from support.finetune.stack import FinetuneStack
from tokenyard.core.clock import SystemClock
from tokenyard.finetune.job import Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.progress import JobProgress, wait_for
from tokenyard.finetune.reconciling.reconciler import JobReconciler
from tokenyard.finetune.states import JobState
from tokenyard.storage.database import Database
from tokenyard.storage.outage import DatabaseDown
from tokenyard.web.leases import KeptLease
from tokenyard.webhooks.events import write_event

LEASE = KeptLease(3000)
DEADLINE_S = 30.0


class Outage(Database):
    """The same database, which a worker cannot reach while it is `away`."""

    def __init__(self, database: Database) -> None:
        self._reachable = database
        self.away = False
        self.refused_writes = 0
        self.refused_twice = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        self.refused_writes += self.away
        if self.refused_writes > 1:
            self.refused_twice.set()
        self._answer()
        async with self._reachable.transaction() as session:
            yield session

    @asynccontextmanager
    async def reading(self, *, statement_timeout_s: float | None = None) -> AsyncIterator[AsyncSession]:
        self._answer()
        async with self._reachable.reading(statement_timeout_s=statement_timeout_s) as session:
            yield session

    def _answer(self) -> None:
        if self.away:
            raise DatabaseDown(OSError("away"))


def worker(database: Database, step: Callable[[Job], Awaitable[JobProgress]]) -> JobReconciler:
    store = JobOperatorStore(database, SystemClock(), write_event)
    return JobReconciler(
        store=store, steps={JobState.VALIDATING: step}, owner="worker", clock=SystemClock(), lease=LEASE
    )


async def created_now(stack: FinetuneStack) -> Job:
    """Create a job by the real clock, which workers go by here."""
    stack.clock.advance(SystemClock().now_ms() / 1000 - stack.clock())
    return await stack.create()


async def others_could_have_it(stack: FinetuneStack) -> bool:
    found = await JobOperatorStore(stack.database, SystemClock(), write_event).claim("other", limit=1)
    return bool(found)


async def test_a_lease_outlives_a_moment_without_sql(stack: FinetuneStack) -> None:
    job = await created_now(stack)
    outage = Outage(stack.database)
    renewed = asyncio.Event()

    async def step(found: Job) -> JobProgress:
        outage.away = True
        await asyncio.wait_for(outage.refused_twice.wait(), DEADLINE_S)
        outage.away = False
        await asyncio.sleep(LEASE.ms / 1000)
        assert not await others_could_have_it(stack)
        renewed.set()
        return wait_for(found, "nothing more")

    with pytest.raises(ExceptionGroup) as failed:  # no other job could be looked for meanwhile
        await worker(outage, step).step()
    assert {type(error) for error in failed.value.exceptions} == {DatabaseDown}
    assert renewed.is_set()
    assert (await stack.job(job.id)).waits_for == "nothing more"


async def test_work_ends_before_its_lease_where_sql_stays_away(stack: FinetuneStack) -> None:
    await created_now(stack)
    outage = Outage(stack.database)
    taken: list[bool] = []

    async def step(found: Job) -> JobProgress:
        outage.away = True
        try:
            await asyncio.sleep(DEADLINE_S)
        except asyncio.CancelledError:
            taken.append(await others_could_have_it(stack))
            raise
        return wait_for(found, "ever")

    with pytest.raises(ExceptionGroup):
        await worker(outage, step).step()
    assert taken == [False], "cancelled while nobody else could have the job"
    assert outage.refused_twice.is_set()


async def test_work_ends_at_once_where_another_worker_has_the_job(stack: FinetuneStack) -> None:
    job = await created_now(stack)
    ends: list[str] = []

    async def step(found: Job) -> JobProgress:
        stack.outlive_leases()
        assert [one.id for one in await stack.operator.claim("other", limit=1)] == [job.id]
        try:
            await asyncio.sleep(DEADLINE_S)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return wait_for(found, "ever")

    with pytest.raises(ExceptionGroup) as failed:
        await worker(stack.database, step).step()
    assert isinstance(failed.value.exceptions[0], TimeoutError)
    assert ends == ["cancelled"]
    assert (await stack.job(job.id)).waits_for is None
