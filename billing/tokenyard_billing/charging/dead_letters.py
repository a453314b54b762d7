"""Keeps events that could not be taken in, so that they can be looked at, and sent again by an operator."""

from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.redis_keys import usage_stream
from tokenyard.metering.stream import FIELD
from tokenyard.storage import bulk
from tokenyard_billing.charging.batch import raise_alarms
from tokenyard_billing.charging.decision import Finding
from tokenyard_billing.charging.streams import StreamEntry
from tokenyard_billing.tables import DeadLetter

MAX_EVENT_CHARACTERS = 64 * 1024


async def keep_dead_letter(session: AsyncSession, entry: StreamEntry, reason: str, now_ms: int) -> None:
    """Write the entry down and raise an alarm; doing it again changes nothing."""
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
    await bulk.insert_new(session, DeadLetter, [row])
    await raise_alarms(session, [(None, Finding("dead_letter", f"{stream}/{entry.id}", str(row["reason"])))], now_ms)
