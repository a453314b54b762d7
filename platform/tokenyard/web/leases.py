"""Keeps a worker's lease of what it works on, and ends the work before anybody else can have it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

_LOG = logging.getLogger(__name__)

Renewal = Callable[[], Awaitable[bool]]
"""Lets the lease last its whole time from now on; tells whether it is still ours."""


class KeptLease:
    """How long a lease lasts in SQL, `ms`, and what follows from it. All other times are seconds."""

    def __init__(self, ms: int) -> None:
        self.ms = ms
        lasts_s = ms / 1000
        # Earlier than SQL says: clocks of machines differ, and what was just sent elsewhere must have arrived there.
        self._work_s = lasts_s * 5 / 6
        self._renew_s = lasts_s / 3
        self._retry_s = lasts_s / 15

    @asynccontextmanager
    async def kept(self, renew: Renewal, *, since: float) -> AsyncIterator[None]:
        """Renew the lease while the body runs. `since` is the event loop's time before the lease was asked for.

        Raises:
            TimeoutError: the lease is lost, or could not be renewed in time; the body was cancelled.
        """
        async with asyncio.timeout_at(since + self._work_s) as limit:
            renewal = asyncio.create_task(self._renew(renew, limit))
            try:
                yield
            finally:
                renewal.cancel()
                await asyncio.wait({renewal})

    async def _renew(self, renew: Renewal, limit: asyncio.Timeout) -> None:
        wait_s = self._renew_s
        while not limit.expired():
            await asyncio.sleep(wait_s)
            asked_at = asyncio.get_running_loop().time()
            try:
                ours = await renew()
            except Exception as error:  # whatever it is: where it lasts, the work ends before the lease does
                _LOG.warning("a lease could not be renewed: %r", error)
                wait_s = self._retry_s
                continue
            if not limit.expired():
                limit.reschedule(asked_at + self._work_s if ours else asked_at)
            wait_s = self._renew_s
