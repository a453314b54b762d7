"""Organizations' calendars and periods as SQL has them."""

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage import bulk
from tokenyard_billing.invoice_tables import BillingPeriod, TimeZoneChange
from tokenyard_billing.periods import BillingCalendar


async def load_calendars(
    session: AsyncSession, organizations: Collection[OrganizationId]
) -> Mapping[OrganizationId, BillingCalendar]:
    """Return the calendar of each of `organizations`."""
    changes = (
        select(TimeZoneChange.organization, TimeZoneChange.since_period, TimeZoneChange.time_zone)
        .where(TimeZoneChange.organization.in_(organizations))
        .order_by(TimeZoneChange.organization, TimeZoneChange.since_period)
    )
    zones: dict[str, list[tuple[str, str]]] = {}
    for organization, since, zone in await session.execute(changes):
        zones.setdefault(organization, []).append((since, zone))
    closed = (
        select(BillingPeriod.organization, func.max(BillingPeriod.period))
        .where(BillingPeriod.organization.in_(organizations), BillingPeriod.closed_at_ms.is_not(None))
        .group_by(BillingPeriod.organization)
    )
    through = {organization: period for organization, period in await session.execute(closed)}
    return {owner: BillingCalendar(zones.get(owner, ()), through.get(owner, "")) for owner in organizations}


async def load_calendar(session: AsyncSession, organization: OrganizationId) -> BillingCalendar:
    """Return the calendar of one organization."""
    return (await load_calendars(session, [organization]))[organization]


async def add_periods(
    session: AsyncSession,
    calendars: Mapping[OrganizationId, BillingCalendar],
    periods: Iterable[tuple[OrganizationId, str]],
    at_ms: int,
) -> None:
    """Write down the periods that are not there yet; one that others were closed after is closed at `at_ms`."""
    rows = [
        {
            "organization": organization,
            "period": period,
            "bucket": bucket_of(organization),
            "start_ms": calendars[organization].start_ms(period),
            "end_ms": calendars[organization].end_ms(period),
            "closed_at_ms": at_ms if period <= calendars[organization].closed_through else None,
            "retry_at_ms": 0,
        }
        for organization, period in sorted(set(periods))
    ]
    await bulk.insert_new(session, BillingPeriod, rows)
