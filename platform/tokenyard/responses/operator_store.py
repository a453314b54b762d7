"""Kept answers of all organizations: for the worker that deletes them in time."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update

from tokenyard.core.clock import Clock
from tokenyard.responses.store import LEASE_MS
from tokenyard.responses.tables import AnswerRow
from tokenyard.storage.database import Database


class AnswerOperatorStore:
    """Also for who makes answers in the background: a process makes those of many tenants."""

    def __init__(self, database: Database, clock: Clock, *, retention_ms: int) -> None:
        self._database = database
        self._clock = clock
        self._retention_ms = retention_ms

    async def renew(self, answers: Sequence[str]) -> set[str]:
        """Renew the leases of answers that are being made; return which of them still are."""
        statement = (
            update(AnswerRow)
            .where(AnswerRow.id.in_(answers), AnswerRow.lease_until_ms.is_not(None))
            .values(state="in_progress", lease_until_ms=self._clock.now_ms() + LEASE_MS)
            .returning(AnswerRow.id)
        )
        async with self._database.transaction() as session:
            return set(await session.scalars(statement))

    async def fail_lost(self) -> list[str]:
        """Say of answers whose lease has ended that they failed; return their ids."""
        statement = (
            update(AnswerRow)
            .where(AnswerRow.lease_until_ms < self._clock.now_ms())
            .values(state="failed", lease_until_ms=None)
            .returning(AnswerRow.id)
        )
        async with self._database.transaction() as session:
            return list(await session.scalars(statement))

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
