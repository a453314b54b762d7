"""Puts usage events on their organization's stream, on the way to the ledger."""

from pathlib import Path
from typing import TypeVar

from redis.asyncio import Redis

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import ReplicaReported, TrainingFinished, UsageEvent, encode_event
from tokenyard.metering.outbox import Outbox

FIELD = b"event"

Event = TypeVar("Event", ReplicaReported, TrainingFinished)


async def emit(redis: Redis, organization: OrganizationId, event: UsageEvent) -> None:
    """Append `event`, as durably as Redis' file is. After a `RedisError` emit again: consumers drop duplicates."""
    await redis.xadd(usage_stream(bucket_of(organization)), {FIELD: encode_event(event)})


def event_outbox(redis: Redis, folder: Path, kind: type[Event]) -> Outbox[Event]:
    """Return an outbox that emits events of one `kind`; its spool is in `folder`."""

    async def deliver(event: Event) -> None:
        owner = event.organization if isinstance(event, TrainingFinished) else event.claims.organization
        await emit(redis, owner, event)

    return Outbox(redis, folder, kind, deliver)
