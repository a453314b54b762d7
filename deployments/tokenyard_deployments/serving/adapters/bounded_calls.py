"""Runs calls that may hang in a few threads of their own, and gives one up that takes too long.

A thread that reads from a store that hangs cannot be ended. It keeps its place, so a store that hangs never takes more
threads than there are places, and meanwhile what it holds is refused at once.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")
Check = Callable[[], None]
AT_ONCE = 4
MAX_WAITING = 28
LIMIT_S = 60.0


class StoreHangs(OSError):
    """The store has not answered an earlier call yet."""


class GivenUp(Exception):
    """Nobody waits for this call any more; raised in its thread."""


class BoundedCalls:
    """At most `at_once` at a time, each given up after `limit_s`, which counts the wait for a place, too.

    At most `max_waiting` wait for one.
    """

    def __init__(
        self, kind: str, *, at_once: int = AT_ONCE, max_waiting: int = MAX_WAITING, limit_s: float = LIMIT_S
    ) -> None:
        self._kind = kind
        self._at_once = at_once
        self._max_waiting = max_waiting
        self._limit_s = limit_s
        self._places = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._hanging: set[str] = set()

    async def run(self, name: str, call: Callable[[Check], Result], unwanted: Callable[[Result], None]) -> Result:
        """Return what `call` returns; it is called in a thread, with a check to be made now and then.

        The check raises `GivenUp` where nobody waits for the result any more; one that comes all the same goes to
        `unwanted`.

        Raises:
            StoreHangs: an earlier call for `name` hangs, or so many others that there is no thread left, or too many
                wait for one.
            TimeoutError: it took too long, or no thread became free in time.
        """
        if name in self._hanging or len(self._hanging) >= self._at_once:
            raise StoreHangs(f"the {self._kind} of {name} cannot begin: earlier ones hang")
        if self._waiting >= self._max_waiting:
            raise StoreHangs(f"the {self._kind} of {name} cannot begin: {self._waiting} wait already")
        async with asyncio.timeout(self._limit_s):
            self._waiting += 1
            try:
                await self._places.acquire()
            finally:
                self._waiting -= 1
            return await self._in_thread(name, call, unwanted)

    async def _in_thread(
        self, name: str, call: Callable[[Check], Result], unwanted: Callable[[Result], None]
    ) -> Result:
        loop, given_up = asyncio.get_running_loop(), threading.Event()
        outcome: asyncio.Future[Result] = loop.create_future()

        def check() -> None:
            if given_up.is_set():
                raise GivenUp(name)

        def end(settle: Callable[[], None], otherwise: Callable[[], None]) -> None:
            self._places.release()
            self._hanging.discard(name)
            (otherwise if outcome.cancelled() else settle)()

        def work() -> None:
            try:
                result = call(check)
            except BaseException as error:  # it is the caller's
                last = partial(end, partial(outcome.set_exception, error), _nothing)
            else:
                last = partial(end, partial(outcome.set_result, result), partial(unwanted, result))
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(last)

        # A daemon, so that a store that hangs does not keep the process from ending.
        threading.Thread(target=work, name=f"{self._kind} {name}", daemon=True).start()
        try:
            return await outcome
        except asyncio.CancelledError:
            given_up.set()
            self._hanging.add(name)
            raise


def _nothing() -> None:
    """Drop an error that nobody waits for."""
