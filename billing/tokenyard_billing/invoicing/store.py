"""One organization's invoices, as the worker last drafted them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.invoicing.tables import Invoice


class InvoiceStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def invoices(
        self, organization: OrganizationId, *, period: str | None = None, after: str | None = None, limit: int
    ) -> Sequence[Invoice]:
        """Return at most `limit` invoices with lines, newest first; an unknown `after` raises `InvalidRequest`."""
        query = select(Invoice).where(Invoice.organization == organization)
        async with self._database.reading() as session:
            last = None if after is None else await session.scalar(query.where(Invoice.id == after))
            if last is None and after is not None:
                raise InvalidRequest(f"No such invoice: {after}", param="after")
            if period is not None:
                query = query.where(Invoice.period == period)
            part = part_of_list(query, Invoice.period, Invoice.id, after=last, limit=limit)
            return (await session.scalars(part.options(selectinload(Invoice.lines)))).all()
