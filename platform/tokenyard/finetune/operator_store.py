"""Jobs and files of all organizations: for the worker's loops and the operator's routes."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.ids import FileId, JobId, OrganizationId
from tokenyard.core.training import TrainingCheckpoint
from tokenyard.finetune.files import FileState
from tokenyard.finetune.jobs import Job, job_of
from tokenyard.finetune.policy import TrainingPolicy, attempt_deadline_ms
from tokenyard.finetune.progress import Note, save
from tokenyard.finetune.states import TRAINING, UNFINISHED, JobState, Outcome, outward
from tokenyard.finetune.tables import FileRow, JobRow
from tokenyard.storage.advisory_lock import advisory_lock
from tokenyard.storage.database import Database
from tokenyard.storage.paging import beyond, cut

LEASE_MS = 30_000
MAX_QUEUE = 1000
STALE_UPLOAD_MS = 6 * 3600 * 1000
# A queued job is taken up by the scheduler, not by a lease.
_WORKED_ON = UNFINISHED - {JobState.QUEUED}


class JobOperatorStore:
    """Leases jobs to workers, schedules them, and shows them to the operator."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def _now_ms(self) -> int:
        return self._clock.now_ms()

    async def claim(self, owner: str, *, limit: int) -> list[Job]:
        """Lease up to `limit` jobs that are due, for `LEASE_MS`."""
        now = self._now_ms()
        due = (
            select(JobRow.id)
            .where(JobRow.state.in_(_WORKED_ON), JobRow.lease_until_ms <= now)
            .order_by(JobRow.lease_until_ms)
            .limit(limit)
        )
        statement = (
            update(JobRow)
            .where(JobRow.id.in_(due.scalar_subquery()), JobRow.lease_until_ms <= now)
            .values(lease_owner=owner, lease_until_ms=now + LEASE_MS)
            .returning(JobRow)
        )
        async with self._database.reading() as session:  # an idle worker does not take the write lock
            if await session.scalar(due.limit(1)) is None:
                return []
        async with self._database.transaction() as session:
            return [job_of(row) for row in await session.scalars(statement)]

    async def renew(self, owner: str, job: JobId) -> None:
        """Lengthen a lease that is still ours."""
        await self._set_lease(owner, job, self._now_ms() + LEASE_MS)

    async def release(self, owner: str, job: JobId, *, look_again_in_ms: int) -> None:
        """Give a lease back; the job is due again after a while."""
        await self._set_lease(owner, job, self._now_ms() + look_again_in_ms)

    async def _set_lease(self, owner: str, job: JobId, until_ms: int) -> None:
        statement = update(JobRow).where(JobRow.id == job, JobRow.lease_owner == owner)
        async with self._database.transaction() as session:
            await session.execute(statement.values(lease_until_ms=until_ms))

    async def get(self, job: JobId) -> Job | None:
        """Return a job of any organization."""
        async with self._database.reading() as session:
            row = await session.get(JobRow, job)
            return job_of(row) if row is not None else None

    async def save(
        self,
        before: Job,
        after: Job,
        *,
        notes: Sequence[Note] = (),
        checkpoints: Sequence[TrainingCheckpoint] = (),
    ) -> Job:
        """Write a job's next state and story.

        Raises:
            JobChanged: somebody else changed it since it was read.
        """
        async with self._database.transaction() as session:
            return await save(session, before, after, now=self._now_ms() // 1000, notes=notes, checkpoints=checkpoints)

    async def schedule(self, policy: TrainingPolicy) -> list[Job]:
        """Start the jobs that fit, first come first served, and tell the others what they wait for.

        Returns what was started. One transaction at a time decides, so the bounds hold over all workers.
        """
        async with self._database.reading() as session:  # with nothing queued, the write lock is not taken
            if await session.scalar(select(JobRow.id).where(JobRow.state == JobState.QUEUED).limit(1)) is None:
                return []
        async with self._database.transaction() as session:
            await advisory_lock(session, "schedule")
            return await _schedule(session, policy, self._now_ms())

    async def page(
        self,
        *,
        organization: OrganizationId | None = None,
        status: str | None = None,
        limit: int,
        after: str | None = None,
    ) -> tuple[list[Job], bool]:
        """Return jobs of all organizations, newest first; `status` is OpenAI's. An unknown `after` starts anew."""
        statement = select(JobRow).where(JobRow.state != JobState.CREATING)
        if organization is not None:
            statement = statement.where(JobRow.organization == organization)
        if status is not None:
            statement = statement.where(_has_status(status))
        async with self._database.reading() as session:
            cursor = await session.get(JobRow, after) if after is not None else None
            if cursor is not None:
                place = (cursor.created_at_ms, cursor.id)
                statement = statement.where(beyond(JobRow.created_at_ms, JobRow.id, place, newest_first=True))
            order = (JobRow.created_at_ms.desc(), JobRow.id.desc())
            rows = await session.scalars(statement.order_by(*order).limit(limit + 1))
            return cut([job_of(row) for row in rows], limit)


class FileOperatorStore:
    """Finds files that nobody can see any more."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def leftovers(self, *, limit: int) -> list[tuple[OrganizationId, FileId]]:
        """Return files whose bytes can go: deleted or expired ones, and uploads that never ended."""
        now_ms = self._clock.now_ms()
        in_use = select(JobRow.training_file).where(JobRow.state.in_(UNFINISHED))
        in_use_too = select(JobRow.validation_file).where(
            JobRow.state.in_(UNFINISHED), JobRow.validation_file.is_not(None)
        )
        statement = (
            select(FileRow.organization, FileRow.id)
            .where(
                or_(
                    FileRow.state == FileState.DELETING,
                    and_(FileRow.state == FileState.UPLOADING, FileRow.created_at_ms < now_ms - STALE_UPLOAD_MS),
                    FileRow.expires_at <= now_ms // 1000,
                ),
                FileRow.id.not_in(in_use),
                FileRow.id.not_in(in_use_too),
            )
            .limit(limit)
        )
        async with self._database.reading() as session:
            return [(OrganizationId(owner), FileId(file)) for owner, file in await session.execute(statement)]


async def _schedule(session: AsyncSession, policy: TrainingPolicy, now_ms: int) -> list[Job]:
    holding = [job_of(row) for row in await session.scalars(select(JobRow).where(JobRow.slot.is_not(None)))]
    queue = await session.scalars(
        select(JobRow).where(JobRow.state == JobState.QUEUED).order_by(JobRow.created_at_ms, JobRow.id).limit(MAX_QUEUE)
    )
    started: list[Job] = []
    waiting = 0
    for job in [job_of(row) for row in queue]:
        busy = [*holding, *started]
        free = sorted(set(range(policy.max_running)) - {other.slot for other in busy})
        own = sum(other.organization == job.organization for other in busy)
        if free and own < policy.max_running_per_organization:
            started.append(await _start(session, job, free[0], policy, now_ms))
            continue
        waits_for = _waits_for(ahead=waiting, busy=len(busy), own_limit=bool(free))
        waiting += 1
        if waits_for != job.waits_for:
            after = msgspec.structs.replace(job, waits_for=waits_for)
            note = Note(message=f"The job is waiting for {waits_for}")
            await save(session, job, after, now=now_ms // 1000, notes=(note,))
    return started


async def _start(session: AsyncSession, job: Job, slot: int, policy: TrainingPolicy, now_ms: int) -> Job:
    assert job.state not in TRAINING
    after = msgspec.structs.replace(
        job,
        state=JobState.RUNNING,
        slot=slot,
        attempt=1,
        waits_for=None,
        deadline_ms=attempt_deadline_ms(policy, now_ms),
    )
    note = Note(message="Fine-tuning job started", source="started")
    return await save(session, job, after, now=now_ms // 1000, notes=(note,))


def _waits_for(*, ahead: int, busy: int, own_limit: bool) -> str:
    if own_limit:
        return "another job of your organization to finish training"
    queue = f" and {ahead} in the queue before it" if ahead else ""
    return f"a training slot: {busy} in use{queue}"


def _has_status(status: str) -> ColumnElement[bool]:
    cancelled = JobRow.outcome == Outcome.CANCELLED
    if status == "cancelled":
        return cancelled
    states = [state for state in JobState if outward(state, None) == status]
    return and_(JobRow.state.in_(states), or_(JobRow.outcome.is_(None), JobRow.outcome != Outcome.CANCELLED))
