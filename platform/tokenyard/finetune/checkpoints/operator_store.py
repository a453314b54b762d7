"""Checkpoints of all organizations that are to become callable: for the worker's loop."""

import msgspec
from sqlalchemy import ColumnElement, Select, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.ids import AdapterId
from tokenyard.finetune.job import Job, job_of
from tokenyard.finetune.progress import Note, add_events
from tokenyard.finetune.tables import CheckpointRow, JobRow
from tokenyard.storage.database import Database, Fence


class DueCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that is leased to `owner`. `adapter` answers for it, where it can be called already.

    `later` is how many its job has made since, and `later_callable` how many of these can be called.
    """

    id: str
    owner: str
    step: int
    job: Job
    adapter: AdapterId | None
    later: int
    later_callable: int

    @property
    def has_had_its_time(self) -> bool:
        """Whether later ones are wanted in its place; one that can be called goes when they can."""
        return (self.later if self.adapter is None else self.later_callable) >= self.job.callable_checkpoints


class CheckpointTaken(Exception):
    """Another worker has the checkpoint by now: nothing may be done with it any more."""


class CheckpointOperatorStore:
    """Leases checkpoints to workers and writes down what became of them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, owner: str, *, limit: int, for_ms: int) -> list[DueCheckpoint]:
        """Lease up to `limit` checkpoints that are due, for `for_ms` from the call on, the longest due first."""
        now_ms = self._clock.now_ms()
        due = select(CheckpointRow.id).where(CheckpointRow.due_ms <= now_ms).order_by(CheckpointRow.due_ms).limit(limit)
        claimed = (
            update(CheckpointRow)
            .where(CheckpointRow.id.in_(due.scalar_subquery()), CheckpointRow.due_ms <= now_ms)
            .values(lease_owner=owner, due_ms=now_ms + for_ms)
            .returning(CheckpointRow.id)
        )
        async with self._database.reading() as session:  # an idle worker does not take the write lock
            if await session.scalar(due.limit(1)) is None:
                return []
        async with self._database.transaction() as session:
            found = list(await session.scalars(claimed))
            return [await _due(session, owner, one) for one in found]

    async def lease(self, due: DueCheckpoint, *, for_ms: int) -> bool:
        """Let a lease that is still ours last `for_ms` from now, when it is due again; tell whether it is ours."""
        until = update(CheckpointRow).where(*_ours(due)).values(due_ms=self._clock.now_ms() + for_ms)
        async with self._database.transaction() as session:
            return await session.scalar(until.returning(CheckpointRow.id)) is not None

    def held(self, due: DueCheckpoint) -> Fence:
        """Return a fence that raises `CheckpointTaken` where the checkpoint is not ours any more."""

        async def check(session: AsyncSession) -> None:
            if await session.scalar(select(CheckpointRow.id).where(*_ours(due)).with_for_update()) is None:
                raise CheckpointTaken(due.id)

        return check

    async def done(self, due: DueCheckpoint, adapter: AdapterId | None, note: Note | None = None) -> None:
        """Write that nothing is left to be done: `adapter` answers for it, or none does.

        Earlier ones that have had their time are due, to be taken out of service. Raises `CheckpointTaken`.
        """
        now_ms = self._clock.now_ms()
        of_job = _of_job(due.job.id).with_for_update()  # in one order: two of a job may be done at the same moment
        async with self._database.transaction() as session:
            rows = list(await session.scalars(of_job))
            this = next(row for row in rows if row.id == due.id)
            if this.lease_owner != due.owner:
                raise CheckpointTaken(due.id)
            this.adapter, this.due_ms, this.lease_owner = adapter, None, None
            for row in [row for row in rows if row.adapter is not None][due.job.callable_checkpoints :]:
                row.due_ms = now_ms if row.due_ms is None else row.due_ms
            await add_events(session, due.job, () if note is None else (note,), now_ms // 1000)


async def _due(session: AsyncSession, owner: str, checkpoint: str) -> DueCheckpoint:
    query = select(CheckpointRow, JobRow).join(JobRow, JobRow.id == CheckpointRow.job)
    row, job = (await session.execute(query.where(CheckpointRow.id == checkpoint))).one()
    later = [other for other in await session.scalars(_of_job(row.job)) if other.step_number > row.step_number]
    return DueCheckpoint(
        id=row.id,
        owner=owner,
        step=row.step_number,
        job=job_of(job),
        adapter=None if row.adapter is None else AdapterId(row.adapter),
        later=len(later),
        later_callable=sum(other.adapter is not None for other in later),
    )


def _of_job(job: str) -> Select[CheckpointRow]:
    """Return a query of a job's checkpoints, last first."""
    return select(CheckpointRow).where(CheckpointRow.job == job).order_by(CheckpointRow.step_number.desc())


def _ours(due: DueCheckpoint) -> tuple[ColumnElement[bool], ...]:
    return CheckpointRow.id == due.id, CheckpointRow.lease_owner == due.owner


def has_due_checkpoints() -> ColumnElement[bool]:
    """Return the condition that a job has some that are to become callable."""
    return exists().where(CheckpointRow.job == JobRow.id, CheckpointRow.due_ms.is_not(None))
