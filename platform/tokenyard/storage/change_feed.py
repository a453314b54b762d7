"""Tells every process what was changed, within moments: a Redis stream that each of them follows."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

_LOG = logging.getLogger(__name__)

STREAM = "ty:changes"
LENGTH = 10_000
BLOCK_MS = 1_000  # shorter than a command's time limit
RETRY_S = 0.2

Listener = Callable[[str | None], Awaitable[None]]
"""Is given the subject that changed; None: anything may have changed, because the feed was out of reach."""


async def publish(redis: Redis, kind: str, subject: str) -> None:
    """Tell all who listen to `kind`; at least once, as listeners must expect."""
    await redis.xadd(STREAM, {"kind": kind, "subject": subject}, maxlen=LENGTH, approximate=True)


class ChangeFeed:
    """Used as `async with`: calls the listener of each kind, one change after the other.

    What happens while Redis is away is not missed: when it is back, every listener is told that anything may have
    changed.
    """

    def __init__(self, redis: Redis, listeners: Mapping[str, Listener]) -> None:
        self._redis = redis
        self._listeners = listeners
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow_for_ever(), name="change feed")
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _follow_for_ever(self) -> None:
        while True:
            try:
                last = await self._newest()
                for listener in self._listeners.values():
                    await listener(None)
                while True:
                    last = await self._read(last)
            except (RedisError, OSError) as error:
                _LOG.warning("the change feed is out of reach: %r", error)
            except Exception:  # a listener's failure must not end the feed for the others
                _LOG.exception("a change could not be followed")
            await asyncio.sleep(RETRY_S)

    async def _newest(self) -> str:
        found = await self._redis.xrevrange(STREAM, count=1)
        return str(found[0][0].decode()) if found else "0-0"

    async def _read(self, last: str) -> str:
        """Pass on what follows the entry `last`; return the newest entry read."""
        reply = await self._redis.xread({STREAM: last}, count=100, block=BLOCK_MS)
        for _stream, entries in reply or ():
            for identity, fields in entries:
                listener = self._listeners.get(fields[b"kind"].decode())
                if listener is not None:
                    await listener(fields[b"subject"].decode())
                last = identity.decode()
        return last
