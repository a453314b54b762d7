"""Sweeps of all organizations: for the worker's loops."""

from sqlalchemy import ColumnElement, and_, exists, select
from sqlalchemy.orm import aliased

from tokenyard.core.ids import SweepId
from tokenyard.finetune.job import job_of
from tokenyard.finetune.states import JobState
from tokenyard.finetune.sweeps.sweep import UNDECIDED, Sweep
from tokenyard.finetune.tables import JobRow
from tokenyard.storage.database import Database


class SweepOperatorStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, sweep: SweepId) -> Sweep:
        """Return the sweep as it is at one moment."""
        query = select(JobRow).where(JobRow.sweep == sweep).order_by(JobRow.trial)
        async with self._database.reading() as session:
            return Sweep(tuple(job_of(row) for row in await session.scalars(query)))


def can_be_compared() -> ColumnElement[bool]:
    """Return the condition that a trial waits and no other of its sweep is left to wait for.

    Until then nobody takes it up: waiting costs no lease, however long another is paused.
    """
    other = aliased(JobRow)
    undecided = exists().where(other.sweep == JobRow.sweep, other.state.in_(UNDECIDED))
    return and_(JobRow.state == JobState.COMPARING, ~undecided)
