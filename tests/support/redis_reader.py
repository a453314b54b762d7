"""Reads what our Redis clients answer as bytes: redis-py's types leave open whether it is `bytes` or `str`."""

from collections.abc import Mapping

from redis.asyncio import Redis

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import UsageEvent, decode_event


def as_bytes(value: object) -> bytes:
    """Return `value`, which must be bytes."""
    assert isinstance(value, bytes), value
    return value


async def read_hash(redis: Redis, name: str) -> dict[bytes, bytes]:
    """Return all fields of a hash; of one that is not there none."""
    return {as_bytes(field): as_bytes(value) for field, value in (await redis.hgetall(name)).items()}


async def read_figures(redis: Redis, name: str) -> dict[str, int]:
    """Return all fields of a hash of whole numbers."""
    return {field.decode(): int(value) for field, value in (await read_hash(redis, name)).items()}


async def read_entries(redis: Redis, stream: str) -> list[Mapping[bytes, bytes]]:
    """Return the fields of each entry of a stream, oldest first."""
    found: list[Mapping[bytes, bytes]] = []
    for _, fields in await redis.xrange(stream) or ():
        assert fields is not None
        found.append({as_bytes(field): as_bytes(value) for field, value in fields.items()})
    return found


async def read_usage(redis: Redis, organization: OrganizationId) -> list[UsageEvent]:
    """Return the events on the usage stream of the organization's bucket, oldest first."""
    return [
        decode_event(fields[b"event"]) for fields in await read_entries(redis, usage_stream(bucket_of(organization)))
    ]
