"""Writes a job's next state and story in one transaction, fenced by the job's version."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import random_text
from tokenyard.core.training import TrainingCheckpoint
from tokenyard.finetune.jobs import Job, progress_columns
from tokenyard.finetune.states import TRAINING, check_transition
from tokenyard.finetune.tables import CheckpointRow, EventRow, JobRow


class JobChanged(Exception):
    """Somebody else changed the job since it was read: read it again before doing anything more."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One line for the job's story. With a `source`, it is told once however often it is written."""

    message: str
    level: Literal["info", "warn", "error"] = "info"
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] = {}
    source: str | None = None
    created_at: int | None = None


async def save(
    session: AsyncSession,
    before: Job,
    after: Job,
    *,
    now: int,
    notes: Sequence[Note] = (),
    checkpoints: Sequence[TrainingCheckpoint] = (),
    due_ms: int | None = None,
) -> Job:
    """Write `after` over `before`; return it with its new version.

    `now` is unix seconds; `due_ms` is when a worker may take the job up, where that changes.

    Raises:
        JobChanged: `before` is not how the job is now; nothing is written.
        IllegalTransition: a bug in the caller.
    """
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
    await _tell(session, saved, notes, now)
    await _keep(session, saved, checkpoints)
    return saved


async def _tell(session: AsyncSession, job: Job, notes: Sequence[Note], now: int) -> None:
    if not notes:
        return
    number = await session.scalar(select(func.max(EventRow.number)).where(EventRow.job == job.id)) or 0
    sources = [note.source for note in notes if note.source is not None]
    told = await session.scalars(select(EventRow.source).where(EventRow.job == job.id, EventRow.source.in_(sources)))
    known = set(told)
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


async def _keep(session: AsyncSession, job: Job, checkpoints: Sequence[TrainingCheckpoint]) -> None:
    if not checkpoints:
        return
    kept = await session.scalars(select(CheckpointRow.step_number).where(CheckpointRow.job == job.id))
    known = set(kept)
    for checkpoint in checkpoints:
        if checkpoint.step_number in known:
            continue
        session.add(
            CheckpointRow(
                id=f"ftckpt_{random_text()}",
                organization=job.organization,
                job=job.id,
                attempt=job.attempt,
                step_number=checkpoint.step_number,
                created_at=checkpoint.created_at,
                path=checkpoint.path,
                metrics=checkpoint.metrics,
            )
        )
