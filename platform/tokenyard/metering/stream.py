"""Puts usage events on their organization's stream, on the way to the ledger."""

from redis.asyncio import Redis

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import UsageEvent, encode_event

FIELD = b"event"


async def emit(redis: Redis, organization: OrganizationId, event: UsageEvent) -> None:
    """Append `event`; it is durable as far as Redis' append-only file is.

    Raises:
        redis.RedisError: not appended, or not known to be: emit again, consumers drop duplicates.
    """
    await redis.xadd(usage_stream(bucket_of(organization)), {FIELD: encode_event(event)})
