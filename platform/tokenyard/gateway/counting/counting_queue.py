"""Who may count next: one count of each organization at a time, in the order they came, and a few in all."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId

THREADS = 2
MAX_ASKED = 16
WAIT_LIMIT_S = 5.0

T = TypeVar("T")


class _Line:
    """Where the requests of one organization stand; `asked` are those that wait or are being served."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.asked = 0


class CountingQueue:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "counting")
        self._lines: dict[OrganizationId, _Line] = {}

    @property
    def under_way(self) -> int:
        return sum(line.asked for line in self._lines.values())

    async def run(self, organization: OrganizationId, work: Callable[[], T]) -> T:
        """Run `work` in a thread when it is its turn. A caller that leaves keeps the turn until the thread has ended.

        Raises:
            RateLimited: too many of this organization wait already.
            Unavailable: it took too long.
        """
        line = self._lines.setdefault(organization, _Line())
        if line.asked >= MAX_ASKED:
            message = "Too many of your long prompts are being counted. Please try again."
            raise RateLimited(message)
        line.asked += 1
        try:
            async with asyncio.timeout(WAIT_LIMIT_S):
                return await asyncio.shield(await self._begun(organization, line, work))
        except TimeoutError:
            raise Unavailable("Too many long prompts at the moment. Please try again.") from None

    async def _begun(self, organization: OrganizationId, line: _Line, work: Callable[[], T]) -> asyncio.Future[T]:
        try:
            await line.turn.acquire()
        except BaseException:
            self._leave(organization, line)
            raise
        counting = asyncio.get_running_loop().run_in_executor(self._threads, work)
        counting.add_done_callback(lambda _done: self._ended(organization, line))
        return counting

    def _ended(self, organization: OrganizationId, line: _Line) -> None:
        line.turn.release()
        self._leave(organization, line)

    def _leave(self, organization: OrganizationId, line: _Line) -> None:
        line.asked -= 1
        if not line.asked:
            del self._lines[organization]
