"""Brings every unfinished job one step further, again and again, whoever died in between.

A job is leased to one worker at a time; what it writes is fenced by the job's version, so a worker that lost its lease
can do no harm, and every step may be repeated.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from tokenyard.core.clock import Clock
from tokenyard.finetune.endings import fail
from tokenyard.finetune.jobs import Job, JobError
from tokenyard.finetune.operator_store import LEASE_MS, JobOperatorStore
from tokenyard.finetune.progress import JobChanged
from tokenyard.finetune.states import FINISHED, JobState

JOBS_AT_ONCE = 8
LOOK_AGAIN_MS = 500
AFTER_FAILURE_MS = 5_000
STEP_TIMEOUT_S = 900.0
_MAX_STEPS = len(JobState)

Handler = Callable[[Job], Awaitable[Job]]


class Reconciler:
    """One worker's share of the work. `owner` names the worker in its leases."""

    def __init__(
        self, *, store: JobOperatorStore, handlers: Mapping[JobState, Handler], owner: str, clock: Clock
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._owner = owner
        self._clock = clock

    async def step(self) -> None:
        """Take up the jobs that are due, side by side.

        Raises:
            ExceptionGroup: what went wrong with some of them; they are due again after a while.
        """
        jobs = await self._store.claim(self._owner, limit=JOBS_AT_ONCE)
        ends = await asyncio.gather(*(self._work(job) for job in jobs), return_exceptions=True)
        failures = [end for end in ends if isinstance(end, BaseException)]
        if failures:
            raise BaseExceptionGroup("jobs could not be brought further", failures)

    async def _work(self, job: Job) -> None:
        look_again_in_ms = AFTER_FAILURE_MS
        try:
            async with self._keeping_lease(job), asyncio.timeout(STEP_TIMEOUT_S):
                await self._advance(job)
            look_again_in_ms = LOOK_AGAIN_MS
        except JobChanged:
            look_again_in_ms = 0
        finally:
            await self._store.release(self._owner, job.id, look_again_in_ms=look_again_in_ms)

    async def _advance(self, job: Job) -> None:
        for _ in range(_MAX_STEPS):
            after = await self._one_step(job)
            if after.state is job.state or after.state in FINISHED or after.state not in self._handlers:
                return
            job = after

    async def _one_step(self, job: Job) -> Job:
        overdue = job.deadline_ms is not None and self._clock.now_ms() > job.deadline_ms
        if job.state is JobState.CREATING:
            return await fail(self._store, job, JobError("not_created", "Creating the job was interrupted."))
        if overdue and job.state in (JobState.VALIDATING, JobState.CHECKING):
            waited = f" It waited for {job.waits_for}." if job.waits_for else ""
            message = f"The step {job.state} took too long.{waited}"
            return await fail(self._store, job, JobError("timeout", message))
        return await self._handlers[job.state](job)

    @asynccontextmanager
    async def _keeping_lease(self, job: Job) -> AsyncIterator[None]:
        async def renew() -> None:
            while True:
                await asyncio.sleep(LEASE_MS / 3000)
                await self._store.renew(self._owner, job.id)

        renewal = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewal.cancel()
            await asyncio.wait({renewal})
