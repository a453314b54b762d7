"""The seals, as tenants and operators read them."""

from collections.abc import Sequence

from sqlalchemy import select

from tokenyard.storage.database import Database
from tokenyard_billing.sealing.tables import Seal


class SealReader:
    """Seals belong to no organization, and tell nothing of one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def seals(self, *, after: str | None, limit: int) -> Sequence[Seal]:
        """Return at most `limit` seals of days before `after`, the newest first."""
        query = select(Seal).order_by(Seal.day.desc()).limit(limit)
        if after is not None:
            query = query.where(Seal.day < after)
        async with self._database.reading() as session:
            return (await session.scalars(query)).all()
