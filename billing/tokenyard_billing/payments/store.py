"""One organization's payments."""

from collections.abc import Sequence

from sqlalchemy import select

from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.payments.tables import Payment


class PaymentStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def payments(
        self, organization: OrganizationId, *, after: str | None = None, limit: int
    ) -> Sequence[Payment]:
        """Return at most `limit` payments, newest first; an unknown `after` raises `InvalidRequest`."""
        query = select(Payment).where(Payment.organization == organization)
        async with self._database.reading() as session:
            last = None if after is None else await session.scalar(query.where(Payment.id == after))
            if last is None and after is not None:
                raise InvalidRequest(f"No such payment: {after}", param="after")
            part = part_of_list(query, Payment.created_at_ms, Payment.id, after=last, limit=limit)
            return (await session.scalars(part)).all()

    async def payment(self, organization: OrganizationId, identity: str) -> Payment:
        query = select(Payment).where(Payment.organization == organization, Payment.id == identity)
        async with self._database.reading() as session:
            found = await session.scalar(query)
        if found is None:
            raise NotFound(f"No such payment: `{identity}`.")
        return found
