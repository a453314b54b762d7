"""Sweeps of one organization: look at, cancel."""

from collections import defaultdict

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import OrganizationId, SweepId
from tokenyard.finetune.job import Job, job_of
from tokenyard.finetune.progress import cancelled, save
from tokenyard.finetune.states import CANCELLABLE, JobOutcome, JobState
from tokenyard.finetune.sweeps.sweep import Sweep
from tokenyard.finetune.tables import JobRow
from tokenyard.storage.database import Database, EventLog
from tokenyard.storage.paging import part_of_list


class SweepStore:
    """Every method sees one organization's sweeps; another's raise `NotFound`, as if they did not exist."""

    def __init__(self, database: Database, clock: Clock, events: EventLog) -> None:
        self._database = database
        self._clock = clock
        self._events = events

    async def get(self, organization: OrganizationId, sweep: SweepId) -> Sweep:
        async with self._database.reading() as session:
            return await _find(session, organization, sweep)

    async def page(self, organization: OrganizationId, *, limit: int, after: str | None) -> list[Sweep]:
        """Return up to `limit` sweeps that follow `after`, newest first; one that is not there: `InvalidRequest`."""
        first = _visible(organization).where(JobRow.sweep.is_not(None), JobRow.trial == 0)
        async with self._database.reading() as session:
            last = None if after is None else await session.scalar(first.where(JobRow.sweep == after))
            if after is not None and last is None:
                raise InvalidRequest(f"No such sweep: {after[:64]}", param="after")
            part = part_of_list(first, JobRow.created_at_ms, JobRow.id, after=last, limit=limit)
            sweeps = list(await session.scalars(part.with_only_columns(JobRow.sweep)))
            trials: dict[str | None, list[Job]] = defaultdict(list)
            of_these = _visible(organization).where(JobRow.sweep.in_(sweeps)).order_by(JobRow.trial)
            for row in await session.scalars(of_these):
                trials[row.sweep].append(job_of(row))
            return [Sweep(tuple(trials[sweep])) for sweep in sweeps]

    async def cancel(self, organization: OrganizationId, sweep: SweepId) -> Sweep:
        """Cancel at one moment every trial that has not ended; again is fine.

        Raises:
            InvalidRequest: all of them have ended.
        """
        now = self._clock.now_ms() // 1000
        async with self._database.transaction() as session:
            found = await _find(session, organization, sweep, to_change=True)
            if all(trial.state not in CANCELLABLE for trial in found.trials):
                if any(trial.outcome is JobOutcome.CANCELLED for trial in found.trials):
                    return found
                raise InvalidRequest(f"The sweep {sweep} has already ended.", code="sweep_not_cancellable")
            trials = [
                await save(session, trial, cancelled(trial, now), self._events, now=now)
                if trial.state in CANCELLABLE
                else trial
                for trial in found.trials
            ]
            return Sweep(tuple(trials))


def _visible(organization: OrganizationId) -> Select[JobRow]:
    return select(JobRow).where(JobRow.organization == organization, JobRow.state != JobState.CREATING)


async def _find(session: AsyncSession, organization: OrganizationId, sweep: str, *, to_change: bool = False) -> Sweep:
    query = _visible(organization).where(JobRow.sweep == sweep).order_by(JobRow.trial)
    rows = await session.scalars(query.with_for_update() if to_change else query)
    trials = tuple(job_of(row) for row in rows)
    if not trials:
        raise NotFound(f"Could not find sweep: {sweep[:64]}", param="sweep_id")
    return Sweep(trials)
