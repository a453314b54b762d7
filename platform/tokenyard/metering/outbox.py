"""Brings items to Redis, and again to a Redis that was restarted or failed over, so that none is lost."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.metering.connection import current_run
from tokenyard.metering.spool import Item, Spool

_LOG = logging.getLogger(__name__)
CHECK_INTERVAL_S = 1.0
DRAIN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0  # a Redis that hangs counts as one that is away
KEPT_S = 5.0  # Redis syncs its file every second, and replicas lag less: what it took longer ago than this is safe
MAX_KEPT = 50_000
ROOM = 10_000  # more items than one file of the spool holds
BATCH = 200


class Outbox(Generic[Item]):
    """Every item given to it is delivered at least once; `deliver` makes sure that more than once does no harm."""

    def __init__(
        self,
        redis: Redis,
        folder: Path,
        kind: type[Item],
        deliver: Callable[[Item], Awaitable[object]],
        *,
        on_restart: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`deliver` raises RedisError where Redis did not take an item; `folder` holds its spool.

        `on_restart` is called when Redis was restarted or failed over, before what waits on disk is sent.
        """
        self._redis = redis
        self._spool = Spool(folder, kind)
        self._send_to_redis = deliver
        self._on_restart = on_restart
        self._run_id = ""
        self._kept: deque[tuple[float, Item]] = deque()
        self._checking: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Future[Any]] = set()

    @property
    def full(self) -> bool:
        """Whether new work must be refused, because what it leads to might have nowhere to go."""
        return len(self._kept) >= MAX_KEPT or self._spool.full

    @property
    def empty(self) -> bool:
        """Whether Redis took everything that was sent; what waits for it of other processes counts as well."""
        return self._spool.empty

    def start(self) -> None:
        """Begin to send again what Redis may have lost, and what waits on disk, also from processes that are gone."""
        self._checking = asyncio.create_task(self._check_for_ever(), name="check the outbox")

    async def close(self) -> None:
        """Wait for what is under way, and leave on disk, for whichever process comes next, what Redis may not have."""
        until = asyncio.get_running_loop().time() + DRAIN_TIMEOUT_S
        while self._sending and (left_s := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._sending, timeout=left_s)
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()
            await asyncio.wait([checking])
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                restarted = await self._current_run_id() != self._run_id
        except (RedisError, OSError):
            restarted = True
        if restarted:
            await self._move_kept_to_disk()
        await self._spool.close()

    def send(self, item: Item) -> "asyncio.Future[None]":
        """Begin to deliver an item, or to keep it on disk until Redis is back.

        What is returned ends when that is done. Nobody needs to wait for it: no cancellation of a caller reaches what
        was begun, and `close` waits for it.
        """
        delivery = asyncio.ensure_future(self._send_to_redis(item))
        done = delivery.get_loop().create_future()
        self._sending.add(delivery)
        delivery.add_done_callback(partial(self._delivered, item, done))
        return done

    def _delivered(self, item: Item, done: "asyncio.Future[None]", delivery: "asyncio.Future[object]") -> None:
        self._sending.discard(delivery)
        if delivery.cancelled():  # the process is ending
            done.cancel()
            return
        error = delivery.exception()
        if isinstance(error, (RedisError, OSError)):
            _LOG.warning("an item waits on disk: %r", error)
            keeping = asyncio.ensure_future(self._spool.append([item]))
            self._sending.add(keeping)
            keeping.add_done_callback(partial(self._kept_on_disk, done))
            return
        if error is None:
            self._kept.append((time.monotonic(), item))
        _end(done, delivery)

    def _kept_on_disk(self, done: "asyncio.Future[None]", keeping: "asyncio.Future[None]") -> None:
        self._sending.discard(keeping)
        _end(done, keeping)

    async def check(self) -> None:
        """Do one round of what happens in the background."""
        try:
            run_id = await self._current_run_id()
        except (RedisError, OSError) as error:
            # It may come back without what it took last, and this process may not be there then to send it again.
            _LOG.warning("Redis is away: %r", error)
            await self._move_kept_to_disk()
            return
        if run_id != self._run_id:
            await self._move_kept_to_disk()
            if self._on_restart is not None:
                await self._on_restart()
            self._run_id = run_id
        oldest = time.monotonic() - KEPT_S
        while self._kept and self._kept[0][0] < oldest:
            self._kept.popleft()
        try:
            await self._spool.replay(self._deliver_all, go_on=lambda: len(self._kept) < MAX_KEPT - ROOM)
        except (RedisError, OSError) as error:
            _LOG.warning("what waits on disk cannot be sent now: %r", error)

    async def _check_for_ever(self) -> None:
        while self._checking is not None:  # a cancellation may be lost in redis-py
            try:
                await self.check()
            except Exception:  # nobody else sends what waits; it stays on disk, and the log tells why
                _LOG.exception("a round of the outbox failed")
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def _current_run_id(self) -> str:
        return (await current_run(self._redis)).id

    async def _move_kept_to_disk(self) -> None:
        kept = [item for _, item in self._kept]
        self._kept.clear()
        await self._spool.append(kept)

    async def _deliver_all(self, items: Sequence[Item]) -> None:
        """Deliver what can be delivered; where that is nothing, raise what is wrong."""
        failed: list[Item] = []
        for at in range(0, len(items), BATCH):
            batch = items[at : at + BATCH]
            replies = await asyncio.gather(*(self._deliver(item) for item in batch), return_exceptions=True)
            errors = [reply for reply in replies if reply is not None]
            for error in errors:
                if len(errors) == len(batch) or not isinstance(error, (RedisError, OSError)):
                    raise error
            failed += [item for item, reply in zip(batch, replies, strict=True) if reply is not None]
        # One shard of a cluster is away: what waits for it must not bring the others' again and again.
        await self._spool.append(failed)

    async def _deliver(self, item: Item) -> None:
        await self._send_to_redis(item)
        self._kept.append((time.monotonic(), item))


def _end(done: "asyncio.Future[None]", work: "asyncio.Future[Any]") -> None:
    if done.done():  # its caller was cancelled
        return
    if work.cancelled():
        done.cancel()
    elif (error := work.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(None)
