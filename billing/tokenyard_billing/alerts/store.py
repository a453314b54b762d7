"""The alerts of one organization's budgets."""

from collections.abc import Sequence

from sqlalchemy import select

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.tables import BudgetAlert


class BudgetAlertStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def alerts(
        self, organization: OrganizationId, *, month: str | None, after: str | None, limit: int
    ) -> Sequence[BudgetAlert]:
        """Return at most `limit` alerts, the newest first; an unknown `after` raises `InvalidRequest`."""
        query = select(BudgetAlert).where(BudgetAlert.organization == organization)
        if month is not None:
            query = query.where(BudgetAlert.month == month)
        async with self._database.reading() as session:
            last = None if after is None else await session.scalar(query.where(BudgetAlert.id == after))
            if last is None and after is not None:
                raise InvalidRequest(f"No such alert: {after}", param="after")
            part = part_of_list(query, BudgetAlert.at_ms, BudgetAlert.id, after=last, limit=limit)
            return (await session.scalars(part)).all()
