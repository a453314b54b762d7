"""The consumer group's side of the usage streams: read, take over, acknowledge, trim."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from tokenyard.core.redis_keys import CONSUMER_GROUP, usage_stream
from tokenyard.metering.stream import FIELD
from tokenyard.storage.redis import redis_time_ms

_START = "0-0"


class StreamEntry(msgspec.Struct, frozen=True):
    """One delivered entry. `fields` None: it was trimmed away, and there is nothing to do but acknowledge it."""

    bucket: int
    id: str
    fields: Mapping[bytes, bytes] | None
    deliveries: int

    @property
    def at_ms(self) -> int:
        """Redis time when it was added."""
        return int(self.id.partition("-")[0])


class UsageStreams:
    """Reads for one consumer of the group. Each bucket's stream is its own, so that this works on Redis Cluster."""

    def __init__(self, redis: Redis, consumer: str) -> None:
        self._redis = redis
        self._consumer = consumer

    async def now_ms(self) -> int:
        """Return Redis time; in a cluster no bucket's server is behind it."""
        return await redis_time_ms(self._redis)

    async def create_groups(self, buckets: Iterable[int]) -> None:
        """Make the group where Redis has none, from the start of the stream."""
        for bucket in buckets:
            try:
                await self._redis.xgroup_create(usage_stream(bucket), CONSUMER_GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def lengths(self, buckets: Sequence[int]) -> dict[int, int]:
        """Return how many entries of each bucket are not trimmed: not yet in SQL, nearly."""
        pipeline = self._redis.pipeline(transaction=False)
        for bucket in buckets:
            pipeline.xlen(usage_stream(bucket))
        return dict(zip(buckets, await pipeline.execute(), strict=True))

    async def watermarks(self, buckets: Collection[int]) -> dict[int, int]:
        """Return for each bucket the Redis time before which everything is committed: no entry that old stands in it.

        An entry goes when it is acknowledged, and that is after its commit. So what was put off, waits for a price or
        was read by a worker that died counts, whoever knows of it.
        """
        now_ms = await self.now_ms()
        pipeline = self._redis.pipeline(transaction=False)
        for bucket in buckets:
            pipeline.xrange(usage_stream(bucket), count=1)
        oldest = zip(buckets, await pipeline.execute(), strict=True)
        return {bucket: _entry(bucket, found[0], 0).at_ms if found else now_ms for bucket, found in oldest}

    async def read_new(self, buckets: Sequence[int], count: int) -> list[StreamEntry]:
        """Return up to `count` entries of each bucket that were never delivered."""
        pipeline = self._redis.pipeline(transaction=False)
        for bucket in buckets:
            pipeline.xreadgroup(CONSUMER_GROUP, self._consumer, {usage_stream(bucket): ">"}, count=count)
        replies = await pipeline.execute(raise_on_error=False)
        entries: list[StreamEntry] = []
        for bucket, reply in zip(buckets, replies, strict=True):
            if isinstance(reply, ResponseError) and str(reply).startswith("NOGROUP"):
                await self.create_groups([bucket])
            elif isinstance(reply, Exception):
                raise reply
            else:
                entries += [_entry(bucket, found, 1) for found in _of_one_stream(reply)]
        return entries

    async def left_behind(self, bucket: int, *, count: int) -> AsyncIterator[list[StreamEntry]]:
        """Yield, up to `count` at a time and each once, entries that some consumer got and never acknowledged."""
        stream, cursor = usage_stream(bucket), _START
        while True:
            reply = await self._redis.xautoclaim(stream, CONSUMER_GROUP, self._consumer, 0, cursor, count=count)
            if claimed := reply[1]:
                pending = await self._redis.xpending_range(
                    stream, CONSUMER_GROUP, _text(claimed[0][0]), _text(claimed[-1][0]), count * 2, self._consumer
                )
                deliveries = {_text(entry["message_id"]): int(entry["times_delivered"]) for entry in pending}
                yield [_entry(bucket, found, deliveries.get(_text(found[0]), 1)) for found in claimed]
            cursor = _text(reply[0])
            if cursor == _START:
                return

    async def standing(self, bucket: int, count: int) -> AsyncIterator[list[bytes]]:
        """Yield the events that stand in the stream now, oldest first, `count` at a time; they stay there."""
        stream, start = usage_stream(bucket), "-"
        newest: Any = await self._redis.xrevrange(stream, count=1)
        while newest:
            entries: Any = await self._redis.xrange(stream, start, newest[0][0], count=count)
            yield [fields.get(FIELD, b"") for _, fields in entries]
            if len(entries) < count:
                return
            start = f"({_text(entries[-1][0])}"

    async def acknowledge(self, entries: Iterable[StreamEntry]) -> None:
        """Say that `entries` are in SQL, and remove them.

        Those below everything that is pending are trimmed; one that waits above others costs only its own place.
        """
        by_bucket: dict[int, list[str]] = {}
        for entry in entries:
            by_bucket.setdefault(entry.bucket, []).append(entry.id)
        if not by_bucket:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for bucket, ids in by_bucket.items():
            pipeline.xack(usage_stream(bucket), CONSUMER_GROUP, *ids)
        await self._remove(by_bucket, pipeline)

    async def trim(self, bucket: int) -> None:
        """Remove what was acknowledged by a process that died before it removed it."""
        await self._remove({bucket: []}, self._redis.pipeline(transaction=False))

    async def _remove(self, acknowledged: Mapping[int, Sequence[str]], pipeline: Pipeline) -> None:
        for bucket in acknowledged:
            pipeline.xinfo_groups(usage_stream(bucket))
            pipeline.xpending(usage_stream(bucket), CONSUMER_GROUP)
        replies = (await pipeline.execute())[-2 * len(acknowledged) :]
        for bucket, groups, summary in zip(acknowledged, replies[::2], replies[1::2], strict=True):
            lowest = summary["min"]
            # With nothing pending, all that had been delivered before that was seen is acknowledged.
            keep = _text(lowest) if lowest else _after(_text(groups[0]["last-delivered-id"]))
            pipeline.xtrim(usage_stream(bucket), minid=keep, approximate=False)
            if lowest and acknowledged[bucket]:
                pipeline.xdel(usage_stream(bucket), *acknowledged[bucket])
        await pipeline.execute()


def _of_one_stream(reply: Any) -> list[Any]:
    """Return the entries of an XREADGROUP reply: a list of pairs, or a mapping where the client speaks RESP3."""
    if not reply:
        return []
    found = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]
    return found[0] if found and isinstance(found[0], list) else found


def _entry(bucket: int, found: Any, deliveries: int) -> StreamEntry:
    identity, fields = found
    return StreamEntry(bucket, _text(identity), fields or None, deliveries)


def _after(identity: str) -> str:
    milliseconds, _, number = identity.partition("-")
    return f"{milliseconds}-{int(number) + 1}"


def _text(value: bytes | str | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
