"""The hours for which fine-tunes are hosted: a usage event for each that begins while one is live, exactly once.

An adapter's row says which hour is the next. It moves on in the transaction that writes the event, so neither a worker
that dies nor two of them make a gap or a double; what was not written while no worker ran is written later. The ledger
drops what comes twice.
"""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.catalog.tables import AdapterRow
from tokenyard.core.clock import Clock
from tokenyard.core.ids import AdapterId, ApiKeyId, OrganizationId, ProjectId
from tokenyard.metering.events import HOUR_MS, AdapterHosted, encode_event
from tokenyard.metering.stream import USAGE_TOPIC
from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import OutboxMessage, TransactionalOutbox, write_message

ADAPTERS_AT_ONCE = 100
HOURS_AT_ONCE = 200
"""Of one adapter, in one transaction: what is left comes in the next."""


def next_hour(at_ms: int) -> int:
    """Return the start of the first hour of UTC that begins at `at_ms` or later."""
    return -(-at_ms // HOUR_MS) * HOUR_MS


class Hosting:
    """Any number of workers may run it."""

    def __init__(self, database: Database, outbox: TransactionalOutbox, clock: Clock) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock

    async def step(self) -> None:
        """Write the events of every hour that has begun."""
        while due := await self._due():
            messages: list[OutboxMessage] = []
            async with self._database.transaction() as session:
                query = select(AdapterRow).where(AdapterRow.id.in_(due)).order_by(AdapterRow.id)
                for row in await session.scalars(query.with_for_update()):
                    messages += await write_hours(session, row, self._clock.now_ms())
            await self._outbox.try_to_carry(messages)

    async def note_pins(self, names: Collection[str], *, all_known: bool) -> None:
        """Note that replicas keep the adapters `names` in memory, and, where `all_known`, no others.

        An hour goes by what is noted as it begins, so those that have begun are written first.
        """
        noted = await self._pinned()
        changed = (set(names) - noted) | ((noted - set(names)) if all_known else set())
        if not changed:
            return
        now_ms = self._clock.now_ms()
        messages: list[OutboxMessage] = []
        async with self._database.transaction() as session:
            query = select(AdapterRow).where(AdapterRow.name.in_(changed)).order_by(AdapterRow.id)
            for row in await session.scalars(query.limit(ADAPTERS_AT_ONCE).with_for_update()):
                messages += await write_hours(session, row, now_ms)
                if row.next_hour_ms is None or row.next_hour_ms > now_ms:
                    row.pinned_ms = now_ms if row.name in names else None
        await self._outbox.try_to_carry(messages)

    async def _pinned(self) -> set[str]:
        async with self._database.reading() as session:
            return set(await session.scalars(select(AdapterRow.name).where(AdapterRow.pinned_ms.is_not(None))))

    async def _due(self) -> list[str]:
        due = select(AdapterRow.id).where(AdapterRow.next_hour_ms <= self._clock.now_ms())
        async with self._database.reading() as session:
            return list(await session.scalars(due.order_by(AdapterRow.next_hour_ms).limit(ADAPTERS_AT_ONCE)))


async def write_hours(session: AsyncSession, row: AdapterRow, now_ms: int) -> list[OutboxMessage]:
    """Write the events of the hours of a row, which is locked, that began by now and while it was live."""
    messages: list[OutboxMessage] = []
    while row.next_hour_ms is not None and row.next_hour_ms <= now_ms and len(messages) < HOURS_AT_ONCE:
        if row.draining_ms is not None and row.next_hour_ms >= row.draining_ms:
            row.next_hour_ms = None
            break
        event = encode_event(_event(row, row.next_hour_ms))
        messages.append(await write_message(session, USAGE_TOPIC, event, now_ms))
        row.next_hour_ms += HOUR_MS
    return messages


def _event(row: AdapterRow, hour_ms: int) -> AdapterHosted:
    return AdapterHosted(
        organization=OrganizationId(row.organization),
        project=ProjectId(row.project),
        key=ApiKeyId(row.key),
        adapter=AdapterId(row.id),
        model=row.name,
        base_model=row.base,
        admitted_at_ms=hour_ms,
        pinned=row.pinned_ms is not None and row.pinned_ms <= hour_ms,
    )
