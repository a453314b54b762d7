"""Fine-tuning jobs of one organization: create, look at, change, cancel."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Select, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound, RateLimited
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.finetune.job import Job, job_of, row_of
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.finetune.progress import JobProgress, cancelled, save
from tokenyard.finetune.states import CANCELLABLE, UNFINISHED, JobOutcome, JobState
from tokenyard.finetune.tables import CheckpointRow, EventRow, JobRow
from tokenyard.storage.database import Database, EventLog, organization_lock
from tokenyard.storage.paging import part_of_list

_Part = TypeVar("_Part", EventRow, CheckpointRow)
CREATION_LEASE_MS = 60_000
"""After this long without confirmation the worker ends a job whose creator is gone."""


class JobStore:
    """Every method sees one organization's jobs; another's raise `NotFound`, as if they did not exist.

    In lists, an `after` that is not there raises `InvalidRequest`.
    """

    def __init__(
        self, database: Database, clock: Clock, files: TrainingFiles, events: EventLog, *, max_unfinished: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._files = files
        self._max_unfinished = max_unfinished

    async def created_with(self, organization: OrganizationId, idempotency_key: str) -> list[Job]:
        """Return the job of this key, or all of its sweep, also while created; none where a creation may begin."""
        async with self._database.reading() as session:
            row = await session.scalar(_of_key(organization, idempotency_key))
            if row is None or row.sweep is None:
                return [] if row is None else [job_of(row)]
            trials = select(JobRow).where(JobRow.organization == organization, JobRow.sweep == row.sweep)
            return [job_of(trial) for trial in await session.scalars(trials.order_by(JobRow.trial))]

    async def begin(
        self, organization: OrganizationId, jobs: Sequence[Job], *, max_unfinished: int | None = None
    ) -> bool:
        """Write jobs in the state `creating`, which nobody sees, before their money is reserved.

        Return False, and write nothing, where the idempotency key of the first is another job's. `max_unfinished`
        replaces the installation's own bound.

        Raises:
            NotFound: a file is not there.
            RateLimited: the organization would have too many unfinished jobs.
            InvalidRequest: these alone are too many.
        """
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            key = jobs[0].idempotency_key
            if key is not None and await session.scalar(_of_key(organization, key)) is not None:
                return False
            for file in jobs[0].files.values():
                await self._files.get(organization, file, session)
            unfinished = await session.scalar(
                select(func.count())
                .select_from(JobRow)
                .where(JobRow.organization == organization, JobRow.state.in_(UNFINISHED))
            )
            limit = self._max_unfinished if max_unfinished is None else max_unfinished
            if (unfinished or 0) + len(jobs) > limit:
                raise _too_many(unfinished or 0, len(jobs), limit)
            session.add_all(row_of(job, lease_until_ms=job.created_at_ms + CREATION_LEASE_MS) for job in jobs)
        return True

    async def update(self, organization: OrganizationId, steps: Sequence[tuple[Job, JobProgress]]) -> list[Job]:
        """Write the creator's next step of all jobs, which are due at once.

        Where the worker ended one of them, raise `JobChanged` and write nothing.
        """
        async with self._database.transaction() as session:
            now = self._clock.now_ms() // 1000
            saved = []
            for before, progress in steps:
                assert before.organization == progress.job.organization == organization
                saved.append(await save(session, before, progress, self._events, now=now, due_ms=now * 1000))
            return saved

    async def discard(self, organization: OrganizationId, jobs: Sequence[Job]) -> None:
        """Remove jobs for which nothing was reserved, as if they had never been."""
        mine = JobRow.id.in_([job.id for job in jobs]), JobRow.organization == organization
        async with self._database.transaction() as session:
            await session.execute(delete(JobRow).where(*mine, JobRow.state == JobState.CREATING))

    async def get(self, organization: OrganizationId, job: JobId) -> Job:
        async with self._database.reading() as session:
            return await _find(session, organization, job)

    async def page(
        self, organization: OrganizationId, *, limit: int, after: str | None, metadata: Mapping[str, str] | None
    ) -> list[Job]:
        """Return up to `limit` jobs that follow `after`, newest first. Empty `metadata` asks for jobs without any."""
        statement = select(JobRow).where(JobRow.organization == organization, JobRow.state != JobState.CREATING)
        if metadata is not None and not metadata:
            statement = statement.where(JobRow.has_details.is_(False))
        for key, value in (metadata or {}).items():
            statement = statement.where(JobRow.details[key].as_string() == value)
        async with self._database.reading() as session:
            last = None if after is None else await session.get(JobRow, after)
            if after is not None and (last is None or last.organization != organization):
                raise InvalidRequest(f"No such fine-tuning job: {after[:64]}", param="after")
            part = part_of_list(statement, JobRow.created_at_ms, JobRow.id, after=last, limit=limit)
            return [job_of(row) for row in await session.scalars(part)]

    async def cancel(self, organization: OrganizationId, job: JobId) -> Job:
        """Decide that the job's model will never be; again is fine. A job that has ended raises `InvalidRequest`."""

        def to_cancel(found: Job) -> JobProgress:
            if found.outcome is JobOutcome.CANCELLED:
                return JobProgress(found)
            if found.state not in CANCELLABLE:
                raise InvalidRequest(f"The job {job} has already ended.", code="job_not_cancellable")
            return cancelled(found, self._clock.now_ms() // 1000)

        return await self.change(organization, job, to_cancel)

    async def change(self, organization: OrganizationId, job: JobId, decide: Callable[[Job], JobProgress]) -> Job:
        """Save what `decide` makes of the job, which may be the job as it is; what it raises leaves all as it was.

        The job is locked, so that a worker's step comes before or after it, never between what is read and written.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            found = await _find(session, organization, job, to_change=True)
            progress = decide(found)
            if progress.job == found:
                return found
            return await save(session, found, progress, self._events, now=now_ms // 1000)

    async def events(
        self, organization: OrganizationId, job: JobId, *, limit: int, after: str | None
    ) -> list[EventRow]:
        """Return up to `limit` of the job's events that follow `after`, newest first."""
        return await self._newest(EventRow, EventRow.number, organization, job, limit=limit, after=after)

    async def checkpoints(
        self, organization: OrganizationId, job: JobId, *, limit: int, after: str | None
    ) -> list[CheckpointRow]:
        """Return up to `limit` of the job's checkpoints that follow `after`, last first."""
        return await self._newest(CheckpointRow, CheckpointRow.step_number, organization, job, limit=limit, after=after)

    async def _newest(
        self,
        table: type[_Part],
        number: InstrumentedAttribute[int],
        organization: OrganizationId,
        job: JobId,
        *,
        limit: int,
        after: str | None,
    ) -> list[_Part]:
        statement = select(table).where(table.organization == organization, table.job == job)
        async with self._database.reading() as session:
            if after is not None:
                cursor = await session.get(table, after)
                if cursor is None or cursor.job != job:
                    raise InvalidRequest(f"The job {job} has no {after[:64]}.", param="after")
                statement = statement.where(number < getattr(cursor, number.key))
            return list(await session.scalars(statement.order_by(number.desc()).limit(limit)))


def _too_many(unfinished: int, more: int, limit: int) -> InvalidRequest | RateLimited:
    if more > max(1, limit):
        message = f"These would be {more} fine-tuning jobs; you may have {limit} that are unfinished."
        return InvalidRequest(message, code="too_many_jobs")
    if more == 1:
        message = f"You have {unfinished} unfinished fine-tuning jobs, which is the limit. Wait for one to end."
    else:
        message = (
            f"You have {unfinished} unfinished fine-tuning jobs, and may have {limit}; these would be {more} more."
        )
    return RateLimited(message, retry_after_s=60)


def _of_key(organization: OrganizationId, idempotency_key: str) -> Select[JobRow]:
    return select(JobRow).where(JobRow.organization == organization, JobRow.idempotency_key == idempotency_key)


async def _find(session: AsyncSession, organization: OrganizationId, job: str, *, to_change: bool = False) -> Job:
    query = select(JobRow).where(
        JobRow.id == job, JobRow.organization == organization, JobRow.state != JobState.CREATING
    )
    row = await session.scalar(query.with_for_update() if to_change else query)
    if row is None:
        raise NotFound(f"Could not find fine-tuning job: {job[:64]}", param="fine_tuning_job_id")
    return job_of(row)
