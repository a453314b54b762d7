"""Invoices of all organizations, as they were last drafted or issued."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.invoicing.store import WHOLE, InvoiceState, in_state


class InvoiceOperatorStore:
    """Reads them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heads(
        self,
        *,
        organization: OrganizationId | None,
        month: str | None,
        state: InvoiceState | None,
        now_ms: int,
        after: str | None,
        limit: int,
    ) -> Sequence[Invoice]:
        """Return at most `limit` invoices, the newest month first; an unknown `after` raises `InvalidRequest`."""
        query = select(Invoice)
        if organization is not None:
            query = query.where(Invoice.organization == organization)
        if month is not None:
            query = query.where(Invoice.period == month)
        if state is not None:
            query = query.where(in_state(state, now_ms))
        async with self._database.reading() as session:
            last = None if after is None else await session.get(Invoice, after)
            if last is None and after is not None:
                raise InvalidRequest(f"No such invoice: {after}", param="after")
            part = part_of_list(query, Invoice.period, Invoice.id, after=last, limit=limit)
            return (await session.scalars(part.options(selectinload(Invoice.credit_notes)))).all()

    async def invoice(self, identity: str) -> Invoice:
        """Return an invoice with all that belongs to it."""
        async with self._database.reading() as session:
            found = await session.get(Invoice, identity, options=WHOLE)
        if found is None:
            raise NotFound(f"No such invoice: {identity}")
        return found
