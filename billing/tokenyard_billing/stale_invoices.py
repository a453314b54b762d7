"""Marks invoices that must be drawn again, in the transaction of what changes them."""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage import bulk
from tokenyard_billing.periods import TIME_ZONE, period_of
from tokenyard_billing.tables import StaleInvoice


async def mark_stale(session: AsyncSession, changes: Iterable[tuple[OrganizationId, int]]) -> None:
    """Mark the invoices that charges or grants change, each an organization and when it counts (unix ms)."""
    periods = {(organization, period_of(at_ms, TIME_ZONE)) for organization, at_ms in changes}
    rows = [
        {
            "organization": organization,
            "period": period,
            "bucket": bucket_of(organization),
            "marks": 1,
            "retry_at_ms": 0,
        }
        for organization, period in sorted(periods)
    ]
    await bulk.add_up(session, StaleInvoice, rows, add=("marks",))
