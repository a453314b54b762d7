"""In which time zone the periods of an organization end."""

from functools import cache
from zoneinfo import available_timezones

import msgspec
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage import bulk
from tokenyard.storage.database import AuditLog, Database
from tokenyard_billing.calendars import load_calendar
from tokenyard_billing.invoice_tables import BillingPeriod, TimeZoneChange
from tokenyard_billing.periods import BillingCalendar, later
from tokenyard_billing.stale_invoices import mark_stale


class BillingTimeZone(msgspec.Struct, frozen=True):
    """`time_zone` is that of `period`, which runs now, and `next_time_zone` that of the one after it."""

    organization: OrganizationId
    time_zone: str
    period: str
    next_time_zone: str
    next_period: str


class BillingTimeZones:
    """Reads and changes them."""

    def __init__(self, database: Database, audit: AuditLog, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def get(self, organization: OrganizationId) -> BillingTimeZone:
        async with self._database.reading() as session:
            return await self._read(session, organization)

    async def change(self, organization: OrganizationId, time_zone: str, *, actor: ApiKeyId) -> BillingTimeZone:
        """Let the next period be the first that ends in `time_zone`; an unknown one raises `InvalidRequest`.

        It begins where the running one ends all the same, so that no moment is in two periods, or in none.
        """
        if time_zone not in _known():
            raise InvalidRequest(f"No such time zone: {time_zone}. It is named like Europe/Berlin.", param="time_zone")
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            before = await self._read(session, organization)
            since = before.next_period
            row = {"organization": organization, "since_period": since}
            change = {"time_zone": time_zone, "changed_at_ms": now_ms}
            statement = bulk.upsert(session, TimeZoneChange).values(row | change)
            await session.execute(statement.on_conflict_do_update(index_elements=list(row), set_=change))
            after = await self._read(session, organization)
            # A clock that is ahead of this one may have begun it: it ends by what was said last.
            begun = (BillingPeriod.organization == organization) & (BillingPeriod.period == since)
            end_ms = BillingCalendar([(since, time_zone)]).end_ms(since)
            await session.execute(update(BillingPeriod).where(begun).values(end_ms=end_ms))
            await mark_stale(session, [(organization, since)])
            self._audit(
                *(session, organization, actor, "organization.time_zone_changed", organization),
                at=now_ms // 1000,
                details={"time_zone": time_zone, "since_period": since},
                before={"time_zone": before.next_time_zone},
            )
        return after

    async def _read(self, session: AsyncSession, organization: OrganizationId) -> BillingTimeZone:
        calendar = await load_calendar(session, organization)
        period = calendar.period_of(self._clock.now_ms())
        zones = calendar.time_zone(period), calendar.time_zone(later(period))
        return BillingTimeZone(organization, zones[0], period, zones[1], later(period))


@cache
def _known() -> frozenset[str]:
    """Return what the system's and Python's own tables of time zones know, but what is none, or each machine's own."""
    return frozenset(available_timezones() - {"Factory", "localtime"})
