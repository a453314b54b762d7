"""Tells every process what was changed, within moments: a Redis stream that each of them follows."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.storage.read_cache import DATABASE_DOWN
from tokenyard.web.loops import is_cancelled

_LOG = logging.getLogger(__name__)

STREAM = "ty:changes"
LENGTH = 10_000
BATCH = 100
BLOCK_MS = 1_000  # shorter than a command's time limit
RETRY_S = 0.2
READ_LIMIT_S = 10.0

Listener = Callable[[str | None], Awaitable[None]]
"""Is given the subject that changed; None: anything may have changed, because the feed was out of reach."""

EntryId = tuple[int, int]
"""Where an entry stands in the stream: the milliseconds of its Redis' clock, and its number among those."""


async def publish(redis: Redis, kind: str, subject: str) -> None:
    """Tell all who listen to `kind`; at least once, as listeners must expect."""
    await redis.xadd(STREAM, {"kind": kind, "subject": subject}, maxlen=LENGTH, approximate=True)


class ChangeFeed:
    """Used as `async with`: calls the listener of each kind, one change after the other.

    Nothing is missed while Redis is away, and nothing that a listener fails on: it is then told that anything may have
    changed, until it takes that. Each listener is told by itself, so that a slow or failing one holds up no other.
    """

    def __init__(self, redis: Redis, listeners: Mapping[str, Listener]) -> None:
        """Take the listeners by their kind."""
        self._redis = redis
        self._listeners = listeners
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for kind, listener in self._listeners.items():
            self._tasks.append(asyncio.create_task(self._follow_for_ever(kind, listener), name=f"changes of {kind}"))
        return self

    async def __aexit__(self, *_raised: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _follow_for_ever(self, kind: str, listener: Listener) -> None:
        while not is_cancelled():
            try:
                await self._follow(kind, listener)
            except (RedisError, OSError) as error:
                _LOG.warning("changes of %s are out of reach: %r", kind, error)
            except Exception:  # told again below, that anything may have changed
                _LOG.exception("a change of %s could not be followed", kind)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, kind: str, listener: Listener) -> None:
        """Pass on every change from now on; return where Redis was restarted and its stream is behind ours."""
        last = await self._newest()
        await listener(None)
        while not is_cancelled():
            entries = await self._read_after(last)
            if not entries and await self._newest() < last:
                return
            subjects = [fields[b"subject"].decode() for _, fields in entries if fields[b"kind"].decode() == kind]
            for subject in dict.fromkeys(subjects):
                await listener(subject)
            if entries:
                last = entries[-1][0]

    async def _newest(self) -> EntryId:
        found: Any = await self._redis.xrevrange(STREAM, count=1)
        return _entry_id(found[0][0]) if found else (0, 0)

    async def _read_after(self, last: EntryId) -> list[tuple[EntryId, dict[bytes, bytes]]]:
        reply: Any = await self._redis.xread({STREAM: f"{last[0]}-{last[1]}"}, count=BATCH, block=BLOCK_MS)
        return [(_entry_id(identity), fields) for _, entries in reply or () for identity, fields in entries]


class PublishedReader:
    """Used as `async with`: reads what SQL has, again whenever that was published, and from time to time in any case.

    `read` reads it into memory, which serves on while it cannot. `listeners` are the change feed's to call.
    """

    def __init__(self, kind: str, read: Callable[[], Awaitable[None]], every_s: Callable[[], float]) -> None:
        """Take `every_s`, which says in how many seconds to read again though nothing was told: a push may be lost."""
        self._kind = kind
        self._read = read
        self._every_s = every_s
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Read once, or go on trying where the database is down; what else `read` raises is raised."""
        try:
            await self._read_in_time()
        except DATABASE_DOWN as error:
            _LOG.warning("%s cannot be read yet: %r", self._kind, error)
        self._task = asyncio.create_task(self._follow(), name=f"reading {self._kind}")
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def listeners(self) -> Mapping[str, Listener]:
        return {self._kind: self._changed}

    async def _changed(self, _subject: str | None) -> None:
        self._told.set()

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every_s()):
                    await self._told.wait()
            except TimeoutError:
                pass
            self._told.clear()
            try:
                await self._read_in_time()
            except Exception as error:  # the process serves on, and tries again
                _LOG.warning("%s cannot be read, those in memory serve on: %r", self._kind, error)

    async def _read_in_time(self) -> None:
        async with asyncio.timeout(READ_LIMIT_S):
            await self._read()


def _entry_id(identity: bytes) -> EntryId:
    milliseconds, _, number = identity.partition(b"-")
    return int(milliseconds), int(number)
