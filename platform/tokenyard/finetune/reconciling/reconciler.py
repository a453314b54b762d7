"""Brings every unfinished job one step further, again and again, whatever died in between.

A job is leased to one worker at a time; work that would outlive its lease is cancelled. Steps only say what is to
become of a job; all of it is saved here, fenced by the job's version, so a worker that lost its lease can do no harm,
and every step may be repeated.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from functools import partial

from tokenyard.core.clock import Clock
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.operator_store import LEASE_MS, JobOperatorStore
from tokenyard.finetune.progress import JobChanged, JobProgress, fail
from tokenyard.finetune.states import JobState
from tokenyard.web.leases import KeptLease

_LOG = logging.getLogger(__name__)
JOBS_AT_ONCE = 8
CLAIM_INTERVAL_S = 0.5
LOOK_AGAIN_MS = 500
AFTER_FAILURE_MS = 5_000
STEP_TIMEOUT_S = 900.0
_MAX_STEPS = len(JobState)

Step = Callable[[Job], Awaitable[JobProgress]]


class JobReconciler:
    """One worker's share of the work. `owner` names the worker in its leases."""

    def __init__(
        self,
        *,
        store: JobOperatorStore,
        steps: Mapping[JobState, Step],
        owner: str,
        clock: Clock,
        lease: KeptLease | None = None,
    ) -> None:
        self._lease = lease or KeptLease(LEASE_MS)
        self._store = store
        self._steps = steps
        self._owner = owner
        self._clock = clock

    async def step(self) -> None:
        """Bring the jobs that are due further, side by side, until none is left; a slow one holds up no other.

        Raises:
            ExceptionGroup: what went wrong last with some of them; they are due again after a while.
        """
        working: set[asyncio.Task[None]] = set()
        failures: deque[BaseException] = deque(maxlen=JOBS_AT_ONCE)
        try:
            while True:
                try:
                    working |= await self._taken_up(JOBS_AT_ONCE - len(working))
                except Exception as error:  # what is under way goes on, as long as its leases last
                    failures.append(error)
                if not working:
                    break
                done, working = await asyncio.wait(working, timeout=CLAIM_INTERVAL_S)
                failures.extend(_failures(done))
                if not working:
                    break
        finally:
            await _end(working)
        if failures:
            raise BaseExceptionGroup("jobs could not be brought further", list(failures))

    async def _taken_up(self, limit: int) -> set[asyncio.Task[None]]:
        if limit == 0:
            return set()
        asked_at = asyncio.get_running_loop().time()
        jobs = await self._store.claim(self._owner, limit=limit, for_ms=self._lease.ms)
        return {asyncio.create_task(self._work(job, asked_at), name=f"bring {job.id} further") for job in jobs}

    async def _work(self, job: Job, leased_at: float) -> None:
        renew = partial(self._store.lease, self._owner, job.id, for_ms=self._lease.ms)
        look_again_in_ms = AFTER_FAILURE_MS
        try:
            async with self._lease.kept(renew, since=leased_at), asyncio.timeout(STEP_TIMEOUT_S):
                await self._advance(job)
            look_again_in_ms = LOOK_AGAIN_MS
        except JobChanged:
            look_again_in_ms = 0
        finally:
            await self._store.lease(self._owner, job.id, for_ms=look_again_in_ms)

    async def _advance(self, job: Job) -> None:
        for _ in range(_MAX_STEPS):
            progress = await self._next(job)
            if progress.job == job and not progress.notes:
                return
            after = await self._save(job, progress)
            if after.state is job.state or after.state not in self._steps:
                return
            job = after

    async def _next(self, job: Job) -> JobProgress:
        if job.state is JobState.CREATING:
            return fail(job, JobError("not_created", "Creating the job was interrupted."))
        overdue = job.deadline_ms is not None and self._clock.now_ms() > job.deadline_ms
        brings_adapter = job.state is JobState.VALIDATING and job.takes_in
        if overdue and (brings_adapter or job.state is JobState.CHECKING):
            waited = f" It waited for {job.waits_for}." if job.waits_for else ""
            return fail(job, JobError("timeout", f"The step {job.state} took too long.{waited}"))
        return await self._steps[job.state](job)

    async def _save(self, job: Job, progress: JobProgress) -> Job:
        try:
            return await self._store.save(job, progress)
        except JobChanged:
            if progress.undo is not None:
                await progress.undo(await self._store.get(job.id))
            raise


def _failures(tasks: Collection[asyncio.Task[None]]) -> Iterator[BaseException]:
    for task in tasks:
        # A cancellation that a library let out would end the loop that looks at these.
        error = RuntimeError("it was cancelled") if task.cancelled() else task.exception()
        if error is not None:
            # The step itself may go on for long.
            _LOG.warning("could not %s: %r", task.get_name(), error)
            yield error


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
