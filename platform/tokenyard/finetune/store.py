"""Fine-tuning jobs of one organization: create, look at, cancel."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound, RateLimited
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.finetune.files import find_file
from tokenyard.finetune.jobs import Job, checkpoint_as_openai, event_as_openai, job_of, row_of
from tokenyard.finetune.progress import Note, save
from tokenyard.finetune.states import CANCELLABLE, UNFINISHED, JobState, Outcome
from tokenyard.finetune.tables import CheckpointRow, EventRow, JobRow
from tokenyard.storage.advisory_lock import advisory_lock
from tokenyard.storage.database import Database
from tokenyard.storage.paging import beyond, cut

CREATION_LEASE_MS = 60_000
"""After this long without confirmation the worker ends a job whose creator is gone."""


class JobStore:
    """Jobs, events and checkpoints of one organization at a time."""

    def __init__(self, database: Database, clock: Clock, *, max_unfinished: int) -> None:
        self._database = database
        self._clock = clock
        self._max_unfinished = max_unfinished

    async def begin(self, organization: OrganizationId, job: Job) -> None:
        """Write a job in the state `creating`, which nobody sees, before its money is reserved.

        Raises:
            NotFound: a file is not there.
            RateLimited: the organization has too many unfinished jobs.
        """
        async with self._database.transaction() as session:
            await advisory_lock(session, f"organization:{organization}")
            for file in (job.training_file, job.validation_file):
                if file is not None:
                    await find_file(session, organization, file, self._clock.now_ms() // 1000)
            unfinished = await session.scalar(
                select(func.count())
                .select_from(JobRow)
                .where(JobRow.organization == organization, JobRow.state.in_(UNFINISHED))
            )
            if (unfinished or 0) >= self._max_unfinished:
                raise RateLimited(
                    f"You have {unfinished} unfinished fine-tuning jobs, which is the limit. Wait for one to end.",
                    headers={"retry-after": "60"},
                )
            session.add(row_of(job, lease_until_ms=job.created_at_ms + CREATION_LEASE_MS))

    async def update(self, organization: OrganizationId, before: Job, after: Job, notes: Sequence[Note]) -> Job:
        """Write the creator's next step; the job is due for a worker at once.

        Raises:
            JobChanged: the worker ended the job meanwhile.
        """
        assert before.organization == after.organization == organization
        async with self._database.transaction() as session:
            now = self._clock.now_ms() // 1000
            return await save(session, before, after, now=now, notes=notes, due_ms=now * 1000)

    async def discard(self, organization: OrganizationId, job: Job) -> None:
        """Remove a job for which nothing was reserved, as if it had never been."""
        async with self._database.transaction() as session:
            await session.execute(
                delete(JobRow).where(
                    JobRow.id == job.id, JobRow.organization == organization, JobRow.state == JobState.CREATING
                )
            )

    async def get(self, organization: OrganizationId, job: JobId) -> Job:
        """Return a job.

        Raises:
            NotFound: there is none, or it belongs to another organization.
        """
        async with self._database.reading() as session:
            return await _find(session, organization, job)

    async def page(
        self,
        organization: OrganizationId,
        *,
        limit: int,
        after: str | None,
        metadata: Mapping[str, str] | None,
    ) -> tuple[list[Job], bool]:
        """Return one page, newest first, and whether there is more. Empty `metadata` asks for jobs without any.

        Raises:
            InvalidRequest: `after` is not a job of this organization.
        """
        statement = select(JobRow).where(JobRow.organization == organization, JobRow.state != JobState.CREATING)
        if metadata is not None and not metadata:
            statement = statement.where(JobRow.has_details.is_(False))
        for key, value in (metadata or {}).items():
            statement = statement.where(JobRow.details[key].as_string() == value)
        async with self._database.reading() as session:
            if after is not None:
                cursor = await session.get(JobRow, after)
                if cursor is None or cursor.organization != organization:
                    raise InvalidRequest(f"No such fine-tuning job: {after[:64]}", param="after")
                place = (cursor.created_at_ms, cursor.id)
                statement = statement.where(beyond(JobRow.created_at_ms, JobRow.id, place, newest_first=True))
            order = (JobRow.created_at_ms.desc(), JobRow.id.desc())
            rows = await session.scalars(statement.order_by(*order).limit(limit + 1))
            return cut([job_of(row) for row in rows], limit)

    async def cancel(self, organization: OrganizationId, job: JobId) -> Job:
        """Decide that the job's model will never be; the worker stops what runs. Cancelling again is fine.

        Raises:
            NotFound: there is none, or it belongs to another organization.
            InvalidRequest: it has already ended.
        """
        now = self._clock.now_ms() // 1000
        async with self._database.transaction() as session:
            await advisory_lock(session, f"organization:{organization}")
            found = await _find(session, organization, job)
            if found.outcome is Outcome.CANCELLED:
                return found
            if found.state not in CANCELLABLE:
                raise InvalidRequest(f"The job {job} has already ended.", code="job_not_cancellable")
            after = msgspec.structs.replace(
                found, state=JobState.STOPPING, outcome=Outcome.CANCELLED, finished_at=now, waits_for=None
            )
            note = Note(message="The fine-tuning job was cancelled", source="cancelled")
            return await save(session, found, after, now=now, notes=(note,))

    async def events(
        self, organization: OrganizationId, job: JobId, *, limit: int, after: str | None
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return a page of the job's story, newest first, and whether there is more.

        Raises:
            NotFound: there is no such job, or it belongs to another organization.
            InvalidRequest: `after` is not an event of this job.
        """
        statement = select(EventRow).where(EventRow.organization == organization, EventRow.job == job)
        async with self._database.reading() as session:
            await _find(session, organization, job)
            if after is not None:
                cursor = await session.get(EventRow, after)
                if cursor is None or cursor.job != job:
                    raise InvalidRequest(f"No such event: {after[:64]}", param="after")
                statement = statement.where(EventRow.number < cursor.number)
            rows = await session.scalars(statement.order_by(EventRow.number.desc()).limit(limit + 1))
            return cut([event_as_openai(row) for row in rows], limit)

    async def checkpoints(
        self, organization: OrganizationId, job: JobId, *, limit: int, after: str | None
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return a page of the job's checkpoints, last first, and whether there is more.

        Raises:
            NotFound: there is no such job, or it belongs to another organization.
            InvalidRequest: `after` is not a checkpoint of this job.
        """
        statement = select(CheckpointRow).where(CheckpointRow.organization == organization, CheckpointRow.job == job)
        async with self._database.reading() as session:
            found = await _find(session, organization, job)
            if after is not None:
                cursor = await session.get(CheckpointRow, after)
                if cursor is None or cursor.job != job:
                    raise InvalidRequest(f"No such checkpoint: {after[:64]}", param="after")
                statement = statement.where(CheckpointRow.step_number < cursor.step_number)
            rows = await session.scalars(statement.order_by(CheckpointRow.step_number.desc()).limit(limit + 1))
            return cut([checkpoint_as_openai(row, found) for row in rows], limit)


async def _find(session: AsyncSession, organization: OrganizationId, job: str) -> Job:
    row = await session.scalar(
        select(JobRow)
        .where(JobRow.id == job, JobRow.organization == organization, JobRow.state != JobState.CREATING)
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise NotFound(f"Could not find fine-tuning job: {job[:64]}", param="fine_tuning_job_id")
    return job_of(row)
