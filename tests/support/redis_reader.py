"""Reads what our Redis clients answer as bytes: redis-py's types leave open whether it is `bytes` or `str`."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from redis.asyncio import Redis

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, usage_stream, windows
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


PARTS = 12


@dataclass(frozen=True)
class ScopeCounts:
    """What is counted of a key, project or organization: by window (rpm, tpm, rpd, tpd), counts by sub-bucket."""

    slots: int = 0
    windows: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def of(self, what: str) -> Mapping[int, int]:
        return self.windows.get(what, {})

    def sum(self, what: str) -> int:
        return sum(self.of(what).values())


def unpack_scope(value: bytes | None) -> ScopeCounts:
    """Read what `limits/lua/windows.lua` packs; what it calls a window's sum must be the sum of its counts."""
    if value is None:
        return ScopeCounts()
    slots, *numbers = (int(number) for number in struct.unpack(f">{1 + 4 * 3 + 4 * PARTS}d", value))
    found = {}
    for at, what in enumerate(("rpm", "tpm", "rpd", "tpd")):
        newest, total, latest = numbers[3 * at : 3 * at + 3]
        counts = [latest, *numbers[12 + PARTS * at : 12 + PARTS * (at + 1)]]
        assert total == sum(counts), f"{what}: {total} is not the sum of {counts}"
        found[what] = {newest - age: count for age, count in enumerate(counts) if count}
    return ScopeCounts(slots, found)


async def read_scope(redis: Redis, bucket: int, scope: str) -> ScopeCounts:
    """Return what is counted of a key, project or organization."""
    value = await redis.get(windows(bucket, scope))
    return unpack_scope(None if value is None else as_bytes(value))
