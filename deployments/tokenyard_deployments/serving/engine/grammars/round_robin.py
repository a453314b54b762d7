"""Who goes next where only one may: organizations in rotation, each in the order of its own requests."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TooManyWaiting(Exception):
    """This organization has as many waiting as it may."""


class RoundRobin:
    """At most `max_waiting` wait of one organization; another's are not delayed by more than one turn each."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._busy = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def one(self, organization: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it.

        Raises:
            TooManyWaiting: there is no place to wait.
        """
        if self._busy:
            await self._wait(organization)
        self._busy = True
        try:
            yield
        finally:
            self._next()

    async def _wait(self, organization: str) -> None:
        mine = self._waiting.setdefault(organization, deque())
        if len(mine) >= self._max_waiting:
            raise TooManyWaiting
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It came in the same moment as the cancellation.
                self._next()
            elif turn in mine:
                mine.remove(turn)
            raise

    def _next(self) -> None:
        """Hand the turn, as it is, to the organization whose last one is longest ago."""
        while self._waiting:
            organization = next(iter(self._waiting))
            theirs = self._waiting.pop(organization)
            turn = theirs.popleft() if theirs else None
            if theirs:
                self._waiting[organization] = theirs
            if turn is not None and not turn.cancelled():
                turn.set_result(None)
                return
        self._busy = False
