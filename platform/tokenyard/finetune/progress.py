"""What a step makes of a job, and how it is written: next state and events in one transaction, fenced by version."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

import msgspec
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import random_text
from tokenyard.core.training import TrainingCheckpoint
from tokenyard.finetune.job import Job, JobError, progress_columns
from tokenyard.finetune.states import TRAINING, JobOutcome, JobState, JobStatus, check_transition, outward
from tokenyard.finetune.tables import CheckpointRow, EventRow, JobRow
from tokenyard.metering.events import TrainingFinished, encode_event
from tokenyard.metering.stream import USAGE_TOPIC
from tokenyard.storage.database import EventLog, Fence
from tokenyard.storage.transactional_outbox import write_message


class JobChanged(Exception):
    """Somebody else changed the job since it was read: read it again before doing anything more."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A new event of a job. With a `source`, it is written once however often the step is repeated."""

    message: str
    level: Literal["info", "warn", "error"] = "info"
    type: Literal["message", "metrics"] = "message"
    data: Mapping[str, object] = {}
    source: str | None = None
    created_at: int | None = None


class JobProgress(msgspec.Struct, frozen=True):
    """The job as it is now to be, and what there is to tell.

    `usage` is what the ledger charges it by: on its way as soon as the progress is saved. `also` is written in the same
    transaction. `undo` takes back what the
    step did outside where somebody else has changed the job meanwhile, so that this progress cannot be saved; it is
    given the job as it is now.
    """

    job: Job
    notes: tuple[Note, ...] = ()
    checkpoints: tuple[TrainingCheckpoint, ...] = ()
    usage: TrainingFinished | None = None
    also: Callable[[AsyncSession], Awaitable[None]] | None = None
    undo: Callable[[Job | None], Awaitable[None]] | None = None

    def then(self, later: "JobProgress") -> "JobProgress":
        """Return `later`, which began with this one's job, with this one's notes and checkpoints before its own."""
        return msgspec.structs.replace(
            later, notes=(*self.notes, *later.notes), checkpoints=(*self.checkpoints, *later.checkpoints)
        )


def fail(job: Job, error: JobError) -> JobProgress:
    """Decide that the job fails; whatever may still run is stopped first."""
    state = JobState.STOPPING if job.state in TRAINING else JobState.SETTLING
    after = msgspec.structs.replace(
        job,
        state=state,
        outcome=JobOutcome.FAILED,
        error=error,
        # It is free, unless its checkpoints stay to be called.
        trained_tokens=job.trained_tokens if job.leaves_checkpoints else 0,
        waits_for=None,
        # A creation that failed may be tried again under its key.
        idempotency_key=None if job.state is JobState.CREATING else job.idempotency_key,
    )
    return JobProgress(after)


def paused(job: Job, deadline_ms: int, after: str = "") -> JobProgress:
    """Let a job rest of which nothing runs; it is cancelled at `deadline_ms`."""
    resting = msgspec.structs.replace(job, state=JobState.PAUSED, deadline_ms=deadline_ms, waits_for=None)
    return JobProgress(resting, (Note(message=f"The fine-tuning job is paused{after}"),))


def cancelled(job: Job, now: int, why: str = "") -> JobProgress:
    """Decide at `now`, in unix seconds, that the job's model will never be."""
    after = msgspec.structs.replace(
        job, state=JobState.STOPPING, outcome=JobOutcome.CANCELLED, finished_at=now, waits_for=None
    )
    return JobProgress(after, (Note(message=f"The fine-tuning job was cancelled{why}", source="cancelled"),))


def wait_for(job: Job, what: str | None) -> JobProgress:
    """Say what the job waits for, once for each thing; None: it waits for nothing any more."""
    if what == job.waits_for:
        return JobProgress(job)
    notes = (Note(message=f"The job is waiting for {what}"),) if what else ()
    return JobProgress(msgspec.structs.replace(job, waits_for=what), notes)


def unchanged(job: Job) -> Fence:
    """Return a fence that raises `JobChanged` where the job is not any more as it was read."""

    async def check(session: AsyncSession) -> None:
        same = select(JobRow.id).where(JobRow.id == job.id, JobRow.version == job.version)
        if await session.scalar(same.with_for_update()) is None:
            raise JobChanged(job.id)

    return check


async def save(
    session: AsyncSession,
    before: Job,
    progress: JobProgress,
    events: EventLog,
    *,
    now: int,
    due_ms: int | None = None,
) -> Job:
    """Write the progress of `before`; return the job with its new version.

    `events` is told of its end, once. `now` is unix seconds; `due_ms` is when a worker may take the job up, where that
    changes.

    Raises:
        JobChanged: `before` is not how the job is now; nothing is written.
        IllegalTransition: a bug in the caller.
    """
    after = progress.job
    if after.state is not before.state:
        check_transition(before.state, after.state, after.outcome)
    slot = after.slot if after.state in TRAINING else None
    saved = msgspec.structs.replace(after, slot=slot, version=before.version + 1)
    values = progress_columns(saved) | {"version": saved.version}
    if due_ms is not None:
        values["lease_until_ms"] = due_ms
    found = await session.execute(
        update(JobRow)
        .where(JobRow.id == before.id, JobRow.version == before.version)
        .values(**values)
        .returning(JobRow.id)
    )
    if found.first() is None:
        raise JobChanged(before.id)
    await add_events(session, saved, progress.notes, now)
    await _add_checkpoints(session, saved, progress.checkpoints, now)
    if progress.also is not None:
        await progress.also(session)
    if progress.usage is not None:
        await write_message(session, USAGE_TOPIC, encode_event(progress.usage), now * 1000)
    if (ended := ending(before, saved)) is not None:
        await events(session, saved.organization, f"fine_tuning.job.{ended}", {"id": saved.id}, at_ms=now * 1000)
    return saved


def ending(before: Job, after: Job) -> JobStatus | None:
    """Return how a job has ended for everybody who sees it, by this very step."""
    was, now = outward(before.state, before.outcome), outward(after.state, after.outcome)
    return now if now != was and now in ("succeeded", "failed", "cancelled") else None


async def add_events(session: AsyncSession, job: Job, notes: Sequence[Note], now: int) -> None:
    """Write notes among the events of a job; `now` is unix seconds."""
    if not notes:
        return
    number = await session.scalar(select(func.max(EventRow.number)).where(EventRow.job == job.id)) or 0
    sources = [note.source for note in notes if note.source is not None]
    known = set(
        await session.scalars(select(EventRow.source).where(EventRow.job == job.id, EventRow.source.in_(sources)))
    )
    for note in notes:
        if note.source in known:
            continue
        number += 1
        session.add(
            EventRow(
                id=f"ftevent-{random_text()}",
                organization=job.organization,
                job=job.id,
                source=note.source or f"v{job.version}-{number}",
                number=number,
                created_at=note.created_at or now,
                level=note.level,
                type=note.type,
                message=note.message,
                data=note.data,
            )
        )


async def _add_checkpoints(
    session: AsyncSession, job: Job, checkpoints: Sequence[TrainingCheckpoint], now: int
) -> None:
    if not checkpoints:
        return
    known = set(await session.scalars(select(CheckpointRow.step_number).where(CheckpointRow.job == job.id)))
    for checkpoint in checkpoints:
        if checkpoint.step_number not in known:
            known.add(checkpoint.step_number)
            session.add(
                CheckpointRow(
                    id=f"ftckpt_{random_text()}",
                    organization=job.organization,
                    job=job.id,
                    step_number=checkpoint.step_number,
                    created_at=checkpoint.created_at,
                    metrics=checkpoint.metrics,
                    due_ms=now * 1000 if job.callable_checkpoints else None,
                )
            )
