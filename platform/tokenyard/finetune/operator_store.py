"""Jobs of all organizations: for the worker's loops and the operator's routes."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, Select, Subquery, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.finetune.checkpoints.operator_store import has_due_checkpoints
from tokenyard.finetune.job import Job, job_of
from tokenyard.finetune.planning.estimate import PastTraining, past_training
from tokenyard.finetune.planning.fair_share import NO_TAGS
from tokenyard.finetune.ports import TrainingNodes, TrainingPlans
from tokenyard.finetune.progress import JobProgress, save
from tokenyard.finetune.results.step_files import StepMetrics
from tokenyard.finetune.scheduling import DAY_MS, Standing, TrainingPolicy, decide
from tokenyard.finetune.states import FINISHED, UNFINISHED, JobOutcome, JobState, JobStatus, outward
from tokenyard.finetune.sweeps.operator_store import can_be_compared
from tokenyard.finetune.tables import EventRow, JobRow
from tokenyard.storage.database import Database, EventLog, advisory_lock
from tokenyard.storage.paging import part_of_list

LEASE_MS = 30_000
MAX_QUEUE = 1000
PAST_JOBS = 20
# A queued job is taken up by the scheduler; a paused one only when it was paused for too long, and one that is to be
# compared only when there is no other to wait for.
_WORKED_ON = UNFINISHED - {JobState.QUEUED, JobState.PAUSED, JobState.COMPARING} | {JobState.EVALUATING}


class JobOperatorStore:
    """Leases jobs to workers, schedules them, and shows them to the operator."""

    def __init__(self, database: Database, clock: Clock, events: EventLog) -> None:
        self._database = database
        self._clock = clock
        self._events = events

    async def claim(self, owner: str, *, limit: int, for_ms: int = LEASE_MS) -> list[Job]:
        """Lease up to `limit` jobs that are due, for `for_ms` from the call on."""
        now = self._clock.now_ms()
        due = (
            select(JobRow.id)
            .where(or_(JobRow.state.in_(_WORKED_ON), _paused_too_long(now), can_be_compared()))
            .where(JobRow.lease_until_ms <= now)
            .order_by(JobRow.lease_until_ms)
            .limit(limit)
        )
        statement = (
            update(JobRow)
            .where(JobRow.id.in_(due.scalar_subquery()), JobRow.lease_until_ms <= now)
            .values(lease_owner=owner, lease_until_ms=now + for_ms)
            .returning(JobRow)
        )
        async with self._database.reading() as session:  # an idle worker does not take the write lock
            if await session.scalar(due.limit(1)) is None:
                return []
        async with self._database.transaction() as session:
            return [job_of(row) for row in await session.scalars(statement)]

    async def lease(self, owner: str, job: JobId, *, for_ms: int) -> bool:
        """Let a lease that is still ours last `for_ms` from now, when the job is due again; tell whether it is ours."""
        statement = update(JobRow).where(JobRow.id == job, JobRow.lease_owner == owner).returning(JobRow.id)
        async with self._database.transaction() as session:
            until = statement.values(lease_until_ms=self._clock.now_ms() + for_ms)
            return await session.scalar(until) is not None

    async def get(self, job: JobId) -> Job | None:
        async with self._database.reading() as session:
            row = await session.get(JobRow, job)
            return job_of(row) if row is not None else None

    async def unfinished(self, jobs: Collection[JobId], *, since_ms: int) -> set[JobId]:
        """Return those of `jobs` that have not ended, or ended at `since_ms` or later."""
        query = select(JobRow.id).where(
            JobRow.id.in_(jobs), or_(JobRow.state.in_(UNFINISHED), JobRow.finished_at * 1000 >= since_ms)
        )
        async with self._database.reading() as session:
            return {JobId(job) for job in await session.scalars(query)}

    async def save(self, before: Job, progress: JobProgress) -> Job:
        """Write a job's progress; `JobChanged` means that somebody else changed it since it was read."""
        async with self._database.transaction() as session:
            return await save(session, before, progress, self._events, now=self._clock.now_ms() // 1000)

    async def metrics(self, job: JobId) -> list[StepMetrics]:
        """Return what the steps of a job measured, in the order in which they were told."""
        of_job = EventRow.job == job, EventRow.type == "metrics"
        query = select(EventRow.created_at, EventRow.data).where(*of_job).order_by(EventRow.number)
        async with self._database.reading() as session:
            return [StepMetrics(told_at, data) for told_at, data in await session.execute(query)]

    async def past_training(self, model: str, method: str, machine: str) -> PastTraining | None:
        """Return what the last jobs of a kind tell, whosever they were."""
        alike = JobRow.model == model, JobRow.method == method, JobRow.machine == machine
        query = select(JobRow).where(*alike, JobRow.state == JobState.SUCCEEDED)
        async with self._database.reading() as session:
            rows = await session.scalars(query.order_by(JobRow.started_at_ms.desc()).limit(PAST_JOBS))
            return past_training([job_of(row) for row in rows])

    async def with_folders(self, *, ended_before_s: int, limit: int) -> list[tuple[OrganizationId, JobId]]:
        """Return jobs that ended before then and whose folder of attempts may still be there, first ended first.

        One whose checkpoints are still to become callable needs it.
        """
        query = (
            select(JobRow.organization, JobRow.id)
            .where(JobRow.folder_deleted_ms.is_(None), JobRow.state.in_(FINISHED), JobRow.finished_at < ended_before_s)
            .where(~has_due_checkpoints())
            .order_by(JobRow.finished_at, JobRow.id)
            .limit(limit)
        )
        async with self._database.reading() as session:
            return [(OrganizationId(owner), JobId(job)) for owner, job in await session.execute(query)]

    async def folder_deleted(self, job: JobId) -> None:
        """Note that a job's folder is gone."""
        noted = update(JobRow).where(JobRow.id == job).values(folder_deleted_ms=self._clock.now_ms())
        async with self._database.transaction() as session:
            await session.execute(noted)

    async def schedule(self, policy: TrainingPolicy, plans: TrainingPlans, nodes: TrainingNodes) -> None:
        """Start the jobs that may train now. One transaction at a time decides, so the bounds hold over all workers."""
        queued = select(JobRow).where(JobRow.state == JobState.QUEUED)
        async with self._database.reading() as session:  # with nothing queued, the write lock is not taken
            waiting = {OrganizationId(one) for one in await session.scalars(_organizations_of(queued))}
            if not waiting:
                return
            holding = _organizations_of(select(JobRow).where(JobRow.slot.is_not(None)))
            busy = waiting | {OrganizationId(one) for one in await session.scalars(holding)}
        terms = await plans.training_terms(busy)
        try:
            free: Sequence[Mapping[str, float]] | Unavailable | None = await nodes.free()
        except Unavailable as away:
            free = away
        async with self._database.transaction() as session:
            await advisory_lock(session, "finetune:schedule")
            now_ms = self._clock.now_ms()
            standing = Standing(await _started(session, now_ms), terms)
            slots = None if isinstance(free, Unavailable) else policy.free_slots(standing.training, free, now_ms)
            of_known = queued.where(JobRow.organization.in_(waiting))
            in_turn = of_known.order_by(JobRow.created_at_ms, JobRow.trial, JobRow.id)
            # A job that its owner changes right now is left for later: else that would end the turn of all others.
            rows = await session.scalars(in_turn.limit(MAX_QUEUE).with_for_update(skip_locked=True))
            for job, progress in decide(policy, standing._replace(free=slots), [job_of(row) for row in rows], now_ms):
                if progress.job != job:
                    await save(session, job, progress, self._events, now=now_ms // 1000)

    async def page(
        self,
        *,
        organization: OrganizationId | None = None,
        status: JobStatus | None = None,
        limit: int,
        after: str | None = None,
    ) -> list[Job]:
        """Return up to `limit` jobs, newest first; `status` is OpenAI's. An unknown `after` starts anew."""
        statement = select(JobRow).where(JobRow.state != JobState.CREATING)
        if organization is not None:
            statement = statement.where(JobRow.organization == organization)
        if status is not None:
            statement = statement.where(_has_status(status))
        async with self._database.reading() as session:
            last = None if after is None else await session.get(JobRow, after)
            part = part_of_list(statement, JobRow.created_at_ms, JobRow.id, after=last, limit=limit)
            return [job_of(row) for row in await session.scalars(part)]


def _organizations_of(jobs: Select[JobRow]) -> Select[str]:
    return jobs.with_only_columns(JobRow.organization).distinct()


async def _started(session: AsyncSession, now_ms: int) -> list[Job]:
    # One that was paused and waits again has its turn still to come.
    begun = select(JobRow).where(JobRow.state != JobState.QUEUED)
    recent = begun.where(or_(JobRow.slot.is_not(None), JobRow.started_at_ms > now_ms - DAY_MS))
    started = [job_of(row) for row in await session.scalars(recent)]
    if not started:
        last = begun.where(JobRow.started_at_ms.is_not(None)).order_by(JobRow.started_at_ms.desc()).limit(1)
        started = [job_of(row) for row in await session.scalars(last)]
    return sorted(started, key=lambda job: (job.started_at_ms or 0, (job.fair or NO_TAGS).time))


def files_in_use() -> Subquery:
    """Return a query of the columns `file` and `job`: each file that an unfinished job needs."""
    training = select(JobRow.training_file.label("file"), JobRow.id.label("job")).where(JobRow.state.in_(UNFINISHED))
    validation = select(JobRow.validation_file, JobRow.id).where(
        JobRow.state.in_(UNFINISHED), JobRow.validation_file.is_not(None)
    )
    return training.union_all(validation).subquery()


def _paused_too_long(now_ms: int) -> ColumnElement[bool]:
    return and_(JobRow.state == JobState.PAUSED, JobRow.deadline_ms <= now_ms)


def _has_status(status: JobStatus) -> ColumnElement[bool]:
    cancelled = JobRow.outcome == JobOutcome.CANCELLED
    if status == "cancelled":
        return cancelled
    states = [state for state in JobState if outward(state, None) == status]
    return and_(JobRow.state.in_(states), or_(JobRow.outcome.is_(None), JobRow.outcome != JobOutcome.CANCELLED))
