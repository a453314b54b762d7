"""Keeps events that could not be taken in, so that they can be looked at and sent again."""

from redis.asyncio import Redis
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.errors import NotFound
from tokenyard.core.redis_keys import usage_stream
from tokenyard.metering.stream import FIELD
from tokenyard.storage import bulk
from tokenyard.storage.database import Database
from tokenyard_billing.charging.streams import StreamEntry
from tokenyard_billing.tables import Alarm, DeadEvent

MAX_EVENT_CHARACTERS = 64 * 1024


async def bury(session: AsyncSession, entry: StreamEntry, reason: str, now_ms: int) -> None:
    """Write the entry to the dead events and raise an alarm; doing it again changes nothing."""
    stream = usage_stream(entry.bucket)
    fields = entry.fields or {}
    text = fields.get(FIELD, repr(dict(fields)).encode()).decode(errors="replace").replace("\x00", "\ufffd")
    row = {
        "stream": stream,
        "entry": entry.id,
        "event": text[:MAX_EVENT_CHARACTERS],
        "reason": reason.replace("\x00", "\ufffd")[:2000],
        "deliveries": entry.deliveries,
        "at_ms": now_ms,
    }
    await bulk.insert_new(session, DeadEvent, [row])
    alarm = {
        "kind": "dead_event",
        "subject": f"{stream}/{entry.id}",
        "organization": None,
        "message": row["reason"],
        "at_ms": now_ms,
    }
    await bulk.insert_new(session, Alarm, [alarm])


async def send_again(database: Database, redis: Redis, stream: str, entry: str) -> None:
    """Put a dead event back on its stream, after its cause was mended; one that is dead again is buried anew.

    Raises:
        NotFound: there is no such dead event.
    """
    async with database.reading() as session:
        found = await session.get(DeadEvent, (stream, entry))
    if found is None:
        raise NotFound(f"No dead event {entry} of {stream}.")
    # Sent first: a crash in between sends it twice at most, and the ledger drops repeats.
    await redis.xadd(stream, {FIELD: found.event})
    async with database.transaction() as session:
        await session.execute(delete(DeadEvent).where(DeadEvent.stream == stream, DeadEvent.entry == entry))
