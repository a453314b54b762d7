"""Keeps the stored drafts of invoices up to date."""

from sqlalchemy import func, select

from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop
from tokenyard_billing.invoicing.store import InvoiceStore
from tokenyard_billing.tables import Charge, Invoice

DRAFT_INTERVAL_S = 60.0
_OVERLAP_MS = 120_000  # charges of a transaction that committed while the last drafts were made


class InvoiceDrafter:
    """Keeps the drafts of every organization with new charges up to date: a worker loop."""

    def __init__(self, database: Database, invoices: InvoiceStore) -> None:
        self._database = database
        self._invoices = invoices
        self._drawn_to_ms: int | None = None

    def loop(self) -> Loop:
        return Loop("draft invoices", self.step, DRAFT_INTERVAL_S)

    async def step(self) -> None:
        """Write new drafts for what was charged since the last step."""
        async with self._database.reading() as session:
            since_ms = self._drawn_to_ms
            if since_ms is None:
                since_ms = await session.scalar(select(func.max(Invoice.drafted_at_ms))) or 0
            newest_ms = await session.scalar(select(func.max(Charge.charged_at_ms))) or 0
            query = select(Charge.organization, Charge.period).where(Charge.charged_at_ms > since_ms - _OVERLAP_MS)
            changed = (await session.execute(query.distinct())).all()
        for organization, period in changed:
            await self._invoices.keep(OrganizationId(organization), period)
        self._drawn_to_ms = newest_ms
