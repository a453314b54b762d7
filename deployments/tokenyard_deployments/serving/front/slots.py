"""The bounded first-come queue in front of the engine: a request enters only when it has a slot."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tokenyard.core.errors import Unavailable

_SMOOTHING = 0.2  # weight of the newest request in the mean time that a slot is held
_FIRST_GUESS_S = 2.0


class Slots:
    """Hands out slots in order of arrival. At most `max_waiting` requests wait, each at most `max_wait_s`."""

    def __init__(
        self, capacity: int, max_waiting: int, max_wait_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._now = now
        self._free = capacity
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()
        self._mean_held_s = _FIRST_GUESS_S
        self._all_free = asyncio.Event()
        self._all_free.set()

    @property
    def running(self) -> int:
        return self._capacity - self._free

    @property
    def waiting(self) -> int:
        """Requests, not slots."""
        return len(self._queue)

    @asynccontextmanager
    async def hold(self, wanted: int = 1) -> AsyncIterator[None]:
        """Wait for `wanted` slots and hold them; more than there are counts as all of them.

        Raises:
            Unavailable: too many wait already, or waiting took too long.
        """
        count = max(1, min(wanted, self._capacity))
        await self._take(count)
        since = self._now()
        try:
            yield
        finally:
            self._mean_held_s += _SMOOTHING * (self._now() - since - self._mean_held_s)
            self._give_back(count)

    async def empty(self) -> None:
        """Wait until no slot is taken."""
        await self._all_free.wait()

    @property
    def retry_after_s(self) -> float:
        """When a newcomer may find a slot: after those that wait, at the pace of late."""
        return (self.waiting + 1) * self._mean_held_s / self._capacity

    async def _take(self, count: int) -> None:
        if not self._queue and self._free >= count:
            self._give(count)
            return
        if len(self._queue) >= self._max_waiting:
            raise Unavailable(
                f"The model is overloaded: {self.waiting} requests are waiting.", retry_after_s=self.retry_after_s
            )
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (granted, count)
        self._queue.append(waiter)
        try:
            async with asyncio.timeout(self._max_wait_s):
                await granted
        except BaseException as error:
            self._leave(waiter)
            if isinstance(error, TimeoutError):
                raise Unavailable(
                    "The model is overloaded: no slot became free in time.", retry_after_s=self.retry_after_s
                ) from None
            raise

    def _leave(self, waiter: tuple[asyncio.Future[None], int]) -> None:
        granted, count = waiter
        if granted.done() and not granted.cancelled():
            # The slots came in the same moment as the cancellation.
            self._give_back(count)
        elif waiter in self._queue:
            self._queue.remove(waiter)
            self._grant_next()

    def _give(self, count: int) -> None:
        self._free -= count
        self._all_free.clear()

    def _give_back(self, count: int) -> None:
        self._free += count
        if self._free == self._capacity:
            self._all_free.set()
        self._grant_next()

    def _grant_next(self) -> None:
        while self._queue and self._queue[0][1] <= self._free:
            granted, count = self._queue.popleft()
            if granted.cancelled():
                continue
            self._give(count)
            granted.set_result(None)
