"""Who may have a document made now: a few at once, and few of one organization, so that nobody holds up the others."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId

AT_ONCE = 2
MAX_ASKED, MAX_OF_ONE = 16, 4
TIME_LIMIT_S = 30.0
Made = TypeVar("Made")


class RenderingQueue:
    """`time_limit_s` is that of one document; without it `TIME_LIMIT_S` is.

    Of one organization one is made at a time, so that those of another one need not wait for all of them.
    """

    def __init__(self, time_limit_s: float | None = None) -> None:
        self._time_limit_s = time_limit_s
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._own_turns: WeakValueDictionary[OrganizationId, asyncio.Lock] = WeakValueDictionary()
        self._asked: Counter[OrganizationId] = Counter()

    async def run(self, organization: OrganizationId, work: Callable[[], Awaitable[Made]]) -> Made:
        """Do `work` when it is its turn; it is cancelled where the caller leaves, or where it takes too long.

        Raises:
            RateLimited: too many documents of this organization are being made.
            Unavailable: too many are being made in all, or it took too long.
        """
        if self._asked[organization] >= MAX_OF_ONE:
            raise RateLimited("Too many of your documents are being made. Please try again.")
        if self._asked.total() >= MAX_ASKED:
            raise Unavailable("Too many documents are being made. Please try again.")
        self._asked[organization] += 1
        own_turn = self._own_turns.setdefault(organization, asyncio.Lock())
        try:
            async with asyncio.timeout(self._time_limit_s or TIME_LIMIT_S), own_turn, self._turns:
                return await work()
        except TimeoutError:
            raise Unavailable("Making the document took too long. Please try again.") from None
        finally:
            self._asked[organization] -= 1
            if not self._asked[organization]:
                del self._asked[organization]
