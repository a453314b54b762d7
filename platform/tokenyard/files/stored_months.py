"""Counts what organizations keep: a usage event for each gigabyte that was kept for a month, exactly once.

As an hour of UTC begins, what an organization keeps is added to its byte-hours. Each 10^9 bytes x 720 hours of them are
one event, however long they took to come together. The sum moves on in the transaction that writes the events, so
neither a worker that dies nor two of them count anything twice; the hours in which no worker ran are counted at what is
kept when one runs again.
"""

from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.files.tables import StoredMonthsRow
from tokenyard.metering.events import HOUR_MS, StorageHeld, encode_event
from tokenyard.metering.stream import USAGE_TOPIC
from tokenyard.storage import bulk
from tokenyard.storage.database import Database
from tokenyard.storage.quota import StorageUse
from tokenyard.storage.transactional_outbox import OutboxMessage, TransactionalOutbox, write_message
from tokenyard.web.loops import Loop

GB_MONTH = 10**9 * 720
"""In byte-hours."""
EVENTS_AT_ONCE = 1000
"""Of one organization, in one transaction: what is left comes with the next hour."""
ORGANIZATIONS_AT_ONCE = 500
INTERVAL_S = 60.0

Organizations = Callable[[], Awaitable[Sequence[OrganizationId]]]
"""Returns all of them."""


class StoredMonths:
    """Any number of workers may run it."""

    def __init__(
        self,
        database: Database,
        use: StorageUse,
        organizations: Organizations,
        outbox: TransactionalOutbox,
        clock: Clock,
    ) -> None:
        self._database = database
        self._use = use
        self._organizations = organizations
        self._outbox = outbox
        self._clock = clock
        self._first_ms: int | None = None  # of organizations that are new

    def loop(self) -> Loop:
        return Loop("stored months", self.step, INTERVAL_S)

    async def step(self) -> None:
        """Count the hours that have begun."""
        now_ms = self._clock.now_ms()
        await self._begin(now_ms)
        while due := await self._due(now_ms):
            for organization in due:
                async with self._database.reading() as session:
                    used = await self._use.of(session, organization)
                async with self._database.transaction() as session:
                    messages = await self._count(session, organization, used, now_ms)
                await self._outbox.try_to_carry(messages)

    async def _begin(self, now_ms: int) -> None:
        """Once an hour: of organizations that are new, the next hour is the first."""
        first = now_ms // HOUR_MS * HOUR_MS + HOUR_MS
        if first == self._first_ms:
            return
        names = await self._organizations()
        rows = [{"organization": name, "byte_hours": 0, "months": 0, "next_hour_ms": first} for name in sorted(names)]
        async with self._database.transaction() as session:
            await bulk.insert_new(session, StoredMonthsRow, rows)
        self._first_ms = first

    async def _due(self, now_ms: int) -> list[OrganizationId]:
        due = select(StoredMonthsRow.organization).where(StoredMonthsRow.next_hour_ms <= now_ms)
        async with self._database.reading() as session:
            found = await session.scalars(due.order_by(StoredMonthsRow.organization).limit(ORGANIZATIONS_AT_ONCE))
            return [OrganizationId(name) for name in found]

    async def _count(
        self, session: AsyncSession, organization: OrganizationId, used: int, now_ms: int
    ) -> list[OutboxMessage]:
        row = await session.get_one(StoredMonthsRow, organization, with_for_update=True)
        if row.next_hour_ms > now_ms:
            return []  # another worker was faster
        hours = (now_ms - row.next_hour_ms) // HOUR_MS + 1
        row.byte_hours += used * hours
        row.next_hour_ms += hours * HOUR_MS
        messages: list[OutboxMessage] = []
        while row.byte_hours >= GB_MONTH and len(messages) < EVENTS_AT_ONCE:
            row.byte_hours -= GB_MONTH
            row.months += 1
            event = StorageHeld(organization, row.months, row.next_hour_ms - HOUR_MS)
            messages.append(await write_message(session, USAGE_TOPIC, encode_event(event), now_ms))
        return messages
