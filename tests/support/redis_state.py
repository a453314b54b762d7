"""What Redis holds, read as what it is: redis-py's types allow text everywhere, our connections answer in bytes."""

from typing import cast

from redis.asyncio import Redis

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import UsageEvent, decode_event


async def usage_events(redis: Redis, organization: OrganizationId) -> list[UsageEvent]:
    """Return what is on the usage stream of the organization's bucket, oldest first."""
    entries = cast(list[tuple[bytes, dict[bytes, bytes]]], await redis.xrange(usage_stream(bucket_of(organization))))
    return [decode_event(fields[b"event"]) for _, fields in entries]


async def hash_of_bytes(redis: Redis, key: str | bytes) -> dict[bytes, bytes]:
    return cast(dict[bytes, bytes], await redis.hgetall(key))


async def hash_of_figures(redis: Redis, key: str) -> dict[str, int]:
    return {field.decode(): int(value) for field, value in (await hash_of_bytes(redis, key)).items()}
