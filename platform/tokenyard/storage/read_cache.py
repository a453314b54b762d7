"""A local cache in front of SQL: bounded, one load at a time for each key, and serving on while SQL is down.

What is old is served while it is loaded again, so that no request waits for SQL because of age alone. Who learns that
SQL was changed says so with `outdate` or `outdate_where`. Nothing but age and size ever drops an entry, so
that no call makes a cached key or model unusable during an outage of SQL.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from tokenyard.core.errors import Unavailable
from tokenyard.storage.outage import DatabaseDown

_LOG = logging.getLogger(__name__)

DATABASE_DOWN = (DatabaseDown, SQLAlchemyError, OSError)
LOAD_TIMEOUT_S = 5.0
RETRY_AFTER_S = 1.0
MAX_LOADS = 1000
_UP = float("-inf")

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Entry(NamedTuple, Generic[V]):
    """`outdated`: SQL may have changed since, so it is good for an outage only."""

    value: V
    loaded_at: float
    outdated: bool = False


class _TooManyLoads(Exception):
    """`MAX_LOADS` are under way."""


class ReadCache(Generic[K, V]):
    """Answers from memory, and loads again what is older than `fresh_s` meanwhile; what is outdated it waits for.

    While the database is down even that is served, up to `stale_s` old, and only one load in `RETRY_AFTER_S` is tried.
    What is absent (`None`) is kept apart, so that a flood of unknown keys cannot push out the known ones.
    """

    def __init__(
        self,
        load: Callable[[K, V | None], Awaitable[V | None]],
        *,
        fresh_s: float,
        stale_s: float = 600.0,
        size: int = 10_000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take `load(key, previous value)`; all times are in seconds of `now`."""
        self._load = load
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._size = size
        self._now = now
        self._present: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._absent: OrderedDict[K, _Entry[None]] = OrderedDict()
        self._loads: dict[K, asyncio.Task[V | None]] = {}
        self._down_until = _UP

    async def get(self, key: K, *, fresh_s: float | None = None) -> V | None:
        """Return what belongs to `key`, where `fresh_s` is given not older than that unless the database is down.

        Raises:
            Unavailable: the database is down, or too many loads are under way, and there is no entry young enough.
        """
        value = self.peek(key, fresh_s=fresh_s)
        if value is not None:
            return value
        absent = self._absent.get(key)
        if absent is not None and self._is_fresh(absent, fresh_s):
            return None
        if self._now() < self._down_until:
            return self._stale(key)
        try:
            load = self._loading(key)
            old = self._present.get(key)
            if old is not None and fresh_s is None and self._is_fresh(old, self._stale_s):
                return old.value
            # A caller that leaves must not end the load that others wait for.
            return await asyncio.shield(load)
        except (*DATABASE_DOWN, _TooManyLoads):
            return self._stale(key)

    def knows(self, key: K) -> bool:
        """Tell whether `get` answers without a load of its own of what was never seen."""
        absent = self._absent.get(key)
        return key in self._present or key in self._loads or (absent is not None and self._is_fresh(absent, None))

    async def latest(self, key: K) -> V | None:
        """Return what belongs to `key` at this moment, never from memory.

        Raises:
            Unavailable: the database is down; what is cached of `key` is left for `get`.
        """
        self.outdate(key)
        if self._now() < self._down_until:
            raise _not_available()
        try:
            return await asyncio.shield(self._loading(key))
        except (*DATABASE_DOWN, _TooManyLoads) as error:
            raise _not_available() from error

    def peek(self, key: K, *, fresh_s: float | None = None) -> V | None:
        """Return what is known of `key` without any waiting; None where it is absent, unknown, outdated or too old."""
        entry = self._present.get(key)
        if entry is None or not self._is_fresh(entry, fresh_s):
            return None
        self._present.move_to_end(key)
        return entry.value

    def outdate(self, key: K) -> None:
        """Have `key` loaded anew when it is next asked for, and keep nothing of a load that began before now."""
        self._loads.pop(key, None)
        _mark(self._present, key)
        _mark(self._absent, key)

    def outdate_where(self, matches: Callable[[V], bool]) -> None:
        """Do so for the entries whose value matches, and for all that is absent: it may be there now, and match."""
        self._loads.clear()
        for key in [key for key, entry in self._present.items() if matches(entry.value)]:
            _mark(self._present, key)
        for key in self._absent:
            _mark(self._absent, key)

    def _is_fresh(self, entry: _Entry[V] | _Entry[None], fresh_s: float | None) -> bool:
        limit_s = self._fresh_s if fresh_s is None else fresh_s
        return not entry.outdated and self._now() - entry.loaded_at < limit_s

    def _loading(self, key: K) -> "asyncio.Task[V | None]":
        """Return the load of `key` that is under way, or begin one."""
        task = self._loads.get(key)
        if task is None:
            if len(self._loads) >= MAX_LOADS:
                raise _TooManyLoads
            if self._down_until != _UP:  # it was down: this load is the one that finds out whether it still is
                self._down_until = self._now() + RETRY_AFTER_S
            task = asyncio.create_task(self._load_once(key))
            self._loads[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return task

    async def _load_once(self, key: K) -> V | None:
        previous = self._present.get(key)
        async with asyncio.timeout(LOAD_TIMEOUT_S):
            value = await self._load(key, previous.value if previous is not None else None)
        if self._loads.get(key) is asyncio.current_task():
            self._keep(key, value)
        return value

    def _finished(self, key: K, task: "asyncio.Task[V | None]") -> None:
        if self._loads.get(key) is task:
            del self._loads[key]
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._down_until = _UP
        elif isinstance(error, DATABASE_DOWN):
            self._down_until = self._now() + RETRY_AFTER_S
            _LOG.warning("the database is down; serving what is cached: %s", type(error).__name__)
        else:  # nobody may be waiting for it
            _LOG.error("a look-up failed", exc_info=error)

    def _keep(self, key: K, value: V | None) -> None:
        if value is None:
            self._present.pop(key, None)
            _put(self._absent, key, _Entry(None, self._now()), self._size)
        else:
            self._absent.pop(key, None)
            _put(self._present, key, _Entry(value, self._now()), self._size)

    def _stale(self, key: K) -> V | None:
        entry = self._present.get(key) or self._absent.get(key)
        if entry is None or self._now() - entry.loaded_at >= self._stale_s:
            raise _not_available()
        return entry.value


def _put(entries: "OrderedDict[K, _Entry[V]]", key: K, entry: _Entry[V], size: int) -> None:
    entries[key] = entry
    entries.move_to_end(key)
    if len(entries) > size:
        entries.popitem(last=False)


def _mark(entries: "OrderedDict[K, _Entry[V]]", key: K) -> None:
    entry = entries.get(key)
    if entry is not None:
        entries[key] = entry._replace(outdated=True)


def _not_available() -> Unavailable:
    return Unavailable("The service cannot look this up right now. Please try again.")
