"""Marks invoices that must be drawn again, in the transaction of what changes them."""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage import bulk
from tokenyard_billing.invoice_tables import StaleInvoice


async def mark_stale(session: AsyncSession, periods: Iterable[tuple[OrganizationId, str]]) -> None:
    """Mark the invoices that charges or grants change, each an organization and the period it counts in."""
    rows = [
        {
            "organization": organization,
            "period": period,
            "bucket": bucket_of(organization),
            "marks": 1,
            "retry_at_ms": 0,
        }
        for organization, period in sorted(set(periods))
    ]
    await bulk.add_up(session, StaleInvoice, rows, add=("marks",))
