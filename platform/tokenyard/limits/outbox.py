"""Brings settlements to Redis, and again to a Redis that was restarted, so that none is lost."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.core.redis_keys import bucket_of, bucket_tag
from tokenyard.limits.scripts import ScriptName, Scripts
from tokenyard.limits.spool import Settlement, Spool

_LOG = logging.getLogger(__name__)
KEPT_S = 5.0  # Redis syncs its file every second: what it acknowledged longer ago than this is safe
MAX_KEPT = 50_000
BATCH = 200


class Outbox:
    """Every settlement given to it reaches Redis at least once; the script makes that exactly once."""

    def __init__(self, redis: Redis, scripts: Scripts, spool: Spool) -> None:
        self._redis = redis
        self._scripts = scripts
        self._spool = spool
        self._run_id = ""
        self._kept: deque[tuple[float, Settlement]] = deque()

    @property
    def full(self) -> bool:
        """Whether new work must be refused, because its usage event might have nowhere to go."""
        return len(self._kept) >= MAX_KEPT or self._spool.full

    async def deliver(self, settlement: Settlement) -> None:
        """Settle in Redis, or keep it on disk until Redis is back."""
        try:
            await self._settle(settlement)
        except RedisError as error:
            _LOG.warning("request %s is settled on disk for now: %s", settlement.key, error)
            await self._spool.append(settlement)

    async def check(self, restarted: Callable[[], Awaitable[None]]) -> None:
        """Send again what a restarted Redis may have lost, then what waits on disk. Call `restarted` in between."""
        try:
            run_id = str((await self._redis.info("server"))["run_id"])
            if run_id != self._run_id:
                await self._send_kept_again()
                await restarted()
                self._run_id = run_id
            # Only an answering Redis makes old ones safe: while it is away, nothing is forgotten.
            oldest = time.monotonic() - KEPT_S
            while self._kept and self._kept[0][0] < oldest:
                self._kept.popleft()
            await self._spool.replay(self._send)
        except (RedisError, OSError) as error:
            _LOG.warning("Redis is away, %d settlements are kept: %s", len(self._kept), error)
            await self._spool.flush()

    async def close(self) -> None:
        """Leave what is on disk to others."""
        await self._spool.close()

    async def _send_kept_again(self) -> None:
        before = len(self._kept)
        await self._send([settlement for _, settlement in self._kept])
        for _ in range(before):  # they were kept anew when they were sent
            self._kept.popleft()

    async def _send(self, settlements: Sequence[Settlement]) -> None:
        for at in range(0, len(settlements), BATCH):
            await asyncio.gather(*(self._settle(settlement) for settlement in settlements[at : at + BATCH]))

    async def _settle(self, settlement: Settlement) -> None:
        tag = bucket_tag(bucket_of(settlement.organization))
        await self._scripts.run(
            ScriptName.SETTLE,
            tag,
            ["", settlement.key, settlement.cost, settlement.tokens, settlement.event, settlement.budgets],
        )
        self._kept.append((time.monotonic(), settlement))
