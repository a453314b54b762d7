"""Expires holds that no gateway renews: a worker loop."""

import logging
import math
import time
from collections.abc import Awaitable, Callable

import msgspec
from redis.asyncio import Redis

from tokenyard.core.redis_keys import BUCKETS, bucket_tag, holds, request
from tokenyard.core.usage import MeterClaims
from tokenyard.limits.holds import SETTLED, StoredHold
from tokenyard.limits.scripts import Argument, ScriptName, Scripts
from tokenyard.metering.events import HoldExpired, encode_event
from tokenyard.storage.redis import current_run, redis_time_ms
from tokenyard.web.loops import Loop

_LOG = logging.getLogger(__name__)
INTERVAL_S = 2.0
BATCH = 100

_CLAIMS = msgspec.json.Decoder(MeterClaims)


class Sweeper:
    """Looks through all buckets; any number of workers may do so at once."""

    def __init__(self, redis: Redis, *, renewal_ms: int, before: Callable[[], Awaitable[None]] | None = None) -> None:
        """`before` is done first each time, or nothing is swept.

        It brings what the ledger took over to Redis: until then the hold of a reservation must stand for it.
        """
        self._redis = redis
        self._before = before
        self._scripts = Scripts(redis)
        # A Redis that just came back holds leases that nobody could renew: gateways get two renewals first.
        self._settling_s = 2 * renewal_ms / 1000
        self._run_id, self._run_since = "", -math.inf  # monotonic seconds
        self._unreadable: dict[int, set[str]] = {}  # by bucket; they stand first, and must not stand in the others' way

    def loop(self) -> Loop:
        return Loop("sweep holds", self.sweep, INTERVAL_S)

    async def sweep(self) -> None:
        """Expire every hold whose lease has ended."""
        if await self._is_settling():
            return
        if self._before is not None:
            await self._before()
        now_ms = await redis_time_ms(self._redis)
        for bucket, keys in (await self._expired(now_ms)).items():
            await self._expire(bucket, keys, now_ms)

    async def _is_settling(self) -> bool:
        """Tell whether Redis came back only just, also as another primary, whose process may be old."""
        run, now = await current_run(self._redis), time.monotonic()
        if run.id != self._run_id:
            self._run_id, self._run_since = run.id, now if self._run_id else -math.inf
        return min(run.uptime_s, now - self._run_since) < self._settling_s

    async def _expired(self, now_ms: int) -> dict[int, list[str]]:
        pipeline = self._redis.pipeline(transaction=False)
        for bucket in range(BUCKETS):
            number = BATCH + len(self._unreadable.get(bucket, ()))
            pipeline.zrangebyscore(holds(bucket), 0, now_ms, start=0, num=number)
        found = [[key.decode() for key in keys] for keys in await pipeline.execute()]
        self._unreadable = {bucket: known.intersection(found[bucket]) for bucket, known in self._unreadable.items()}
        readable = {
            bucket: [key for key in keys if key not in self._unreadable.get(bucket, ())]
            for bucket, keys in enumerate(found)
        }
        return {bucket: keys for bucket, keys in readable.items() if keys}

    async def _expire(self, bucket: int, keys: list[str], now_ms: int) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.get(request(bucket, key))
        arguments: list[Argument] = [""]
        for key, value in zip(keys, await pipeline.execute(), strict=True):
            try:
                arguments += [key, _event(value, now_ms)]
            except (msgspec.MsgspecError, ValueError):
                # Not ours, or of another version: its money stays held, and the log says why.
                _LOG.exception("the claims of hold %s cannot be read", key)
                self._unreadable.setdefault(bucket, set()).add(key)
        await self._scripts.run(ScriptName.SWEEP, bucket_tag(bucket), arguments)


def _event(value: bytes | None, now_ms: int) -> bytes:
    """Return what to report when the hold in a request's value ends; nothing where no request stands behind it."""
    if value is None or value == SETTLED:
        return b""
    hold = StoredHold.read(value)
    if not hold.claims:
        return b""
    complete = msgspec.structs.replace(_CLAIMS.decode(hold.claims), admitted_at_ms=hold.admitted_at_ms)
    return encode_event(HoldExpired(complete, now_ms))
