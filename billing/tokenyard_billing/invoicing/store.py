"""One organization's invoices, as the worker last drafted or issued them, and its periods."""

from collections.abc import Sequence
from typing import Final, Literal

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import selectinload

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.invoice_tables import BillingPeriod, Invoice

OPEN: Final = "open"
PAST_DUE: Final = "past_due"
InvoiceState = Literal["draft", "open", "past_due", "paid", "void", "uncollectible"]
"""Past due is what an open one is from `due_at_ms` on; nothing is written then."""

WHOLE: Final = (
    selectinload(Invoice.lines),
    selectinload(Invoice.settlement),
    selectinload(Invoice.credit_notes),
)
"""Load an invoice with all that is shown of it."""


def in_state(state: InvoiceState, now_ms: int) -> ColumnElement[bool]:
    """Tell of an invoice whether it is shown in `state` at a moment."""
    if state == OPEN:
        return (Invoice.state == OPEN) & (Invoice.due_at_ms > now_ms)
    if state == PAST_DUE:
        return (Invoice.state == OPEN) & (Invoice.due_at_ms <= now_ms)
    return Invoice.state == state


class InvoiceStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def invoices(
        self,
        organization: OrganizationId,
        *,
        now_ms: int,
        period: str | None = None,
        state: InvoiceState | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[Invoice]:
        """Return at most `limit` invoices with lines, newest first; an unknown `after` raises `InvalidRequest`."""
        query = select(Invoice).where(Invoice.organization == organization)
        async with self._database.reading() as session:
            last = None if after is None else await session.scalar(query.where(Invoice.id == after))
            if last is None and after is not None:
                raise InvalidRequest(f"No such invoice: {after}", param="after")
            if period is not None:
                query = query.where(Invoice.period == period)
            if state is not None:
                query = query.where(in_state(state, now_ms))
            part = part_of_list(query, Invoice.period, Invoice.id, after=last, limit=limit)
            return (await session.scalars(part.options(*WHOLE))).all()

    async def periods(
        self, organization: OrganizationId, *, after: str | None = None, limit: int
    ) -> Sequence[BillingPeriod]:
        """Return at most `limit` of the periods of which something was charged, before `after`, the newest first."""
        query = select(BillingPeriod).where(BillingPeriod.organization == organization)
        if after is not None:
            query = query.where(BillingPeriod.period < after)
        async with self._database.reading() as session:
            return (await session.scalars(query.order_by(BillingPeriod.period.desc()).limit(limit))).all()
