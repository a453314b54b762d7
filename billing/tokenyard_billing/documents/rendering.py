"""Renders documents in threads: a few at once, and few of one organization, so that nobody holds up the others."""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId

THREADS = 2
MAX_ASKED, MAX_OF_ONE = 16, 4
WAIT_LIMIT_S = 30.0


class RenderingQueue:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "documents")
        self._asked: Counter[OrganizationId] = Counter()

    async def run(self, organization: OrganizationId, work: Callable[[], bytes]) -> bytes:
        """Run `work` in a thread. Where the caller leaves, it counts as long as it runs.

        Raises:
            RateLimited: too many documents of this organization are being made.
            Unavailable: too many are being made in all, or it took too long.
        """
        if self._asked[organization] >= MAX_OF_ONE:
            raise RateLimited("Too many of your documents are being made. Please try again.")
        if self._asked.total() >= MAX_ASKED:
            raise Unavailable("Too many documents are being made. Please try again.")
        self._asked[organization] += 1
        made = asyncio.get_running_loop().run_in_executor(self._threads, work)
        made.add_done_callback(lambda done: self._ended(organization, done))
        try:
            async with asyncio.timeout(WAIT_LIMIT_S):
                return await asyncio.shield(made)
        except TimeoutError:
            raise Unavailable("Too many documents are being made. Please try again.") from None

    def _ended(self, organization: OrganizationId, made: asyncio.Future[bytes]) -> None:
        if not made.cancelled():
            made.exception()  # whoever asked may have left, and nobody else would read it
        self._asked[organization] -= 1
        if not self._asked[organization]:
            del self._asked[organization]
