"""Kept answers of all organizations: for the worker that deletes them in time."""

from sqlalchemy import delete, select

from tokenyard.core.clock import Clock
from tokenyard.responses.tables import AnswerRow
from tokenyard.storage.database import Database


class AnswerOperatorStore:
    def __init__(self, database: Database, clock: Clock, *, retention_ms: int) -> None:
        self._database = database
        self._clock = clock
        self._retention_ms = retention_ms

    async def delete_expired(self, *, limit: int) -> int:
        """Delete up to `limit` answers whose time is over; return how many."""
        expired = (
            select(AnswerRow.id)
            .where(AnswerRow.created_at_ms <= self._clock.now_ms() - self._retention_ms)
            .order_by(AnswerRow.created_at_ms)
            .limit(limit)
        )
        async with self._database.transaction() as session:
            deleted = await session.scalars(delete(AnswerRow).where(AnswerRow.id.in_(expired)).returning(AnswerRow.id))
            return len(deleted.all())
