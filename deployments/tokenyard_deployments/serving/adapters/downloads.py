"""Runs downloads in a few threads of their own, and gives one up that takes too long.

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
AT_ONCE = 4
LIMIT_S = 60.0


class StoreHangs(OSError):
    """The blob store has not answered an earlier download yet."""


class GivenUp(Exception):
    """Nobody waits for this download any more; raised in its thread."""


class Downloads:
    """At most `at_once` at a time, each given up after `limit_s`, which counts the wait for a place, too."""

    def __init__(self, *, at_once: int = AT_ONCE, limit_s: float = LIMIT_S) -> None:
        self._at_once = at_once
        self._limit_s = limit_s
        self._places = asyncio.Semaphore(at_once)
        self._hanging: set[str] = set()

    async def run(self, name: str, download: Callable[[Callable[[], None]], Result]) -> Result:
        """Return what `download` returns; it is called in a thread, with a check to be made now and then.

        The check raises `GivenUp` where nobody waits for the result any more.

        Raises:
            StoreHangs: an earlier download of `name` hangs, or so many others that there is no thread left.
            TimeoutError: it took too long, or no thread became free in time.
        """
        if name in self._hanging or len(self._hanging) >= self._at_once:
            raise StoreHangs(f"the download of {name} cannot begin: the blob store hangs")
        async with asyncio.timeout(self._limit_s):
            await self._places.acquire()
            return await self._in_thread(name, download)

    async def _in_thread(self, name: str, download: Callable[[Callable[[], None]], Result]) -> Result:
        loop, given_up = asyncio.get_running_loop(), threading.Event()
        outcome: asyncio.Future[Result] = loop.create_future()

        def check() -> None:
            if given_up.is_set():
                raise GivenUp(name)

        def work() -> None:
            settle: Callable[[], None]
            try:
                settle = partial(outcome.set_result, download(check))
            except BaseException as error:  # it is the caller's
                settle = partial(outcome.set_exception, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(self._end, name, outcome, settle)

        # A daemon, so that a store that hangs does not keep the process from ending.
        threading.Thread(target=work, name=f"download {name}", daemon=True).start()
        try:
            return await outcome
        except asyncio.CancelledError:
            given_up.set()
            self._hanging.add(name)
            raise

    def _end(self, name: str, outcome: "asyncio.Future[Result]", settle: Callable[[], None]) -> None:
        self._places.release()
        self._hanging.discard(name)
        if not outcome.cancelled():
            settle()
