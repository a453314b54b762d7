"""Requests for models that sleep: they call for a replica and wait here until one is there, within bounds."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import WakingBounds
from tokenyard.gateway.ports import Replicas

RETRY_AFTER_S = 15.0
"""Most of a start may be over by then."""
Found = TypeVar("Found")


class WakingQueue:
    """What waits at this gateway, for any model.

    Of the places of a model, one organization may have no more than are left free, so that there is always one for the
    next; there is no order among those who wait, as a replica that comes has its own.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._waiting: dict[str, Counter[OrganizationId]] = {}

    @property
    def requests(self) -> int:
        return sum(waiting.total() for waiting in self._waiting.values())

    async def wait(
        self, model: str, bounds: WakingBounds, organization: OrganizationId, look: Callable[[], Found | None]
    ) -> Found:
        """Wake base model `model`, and return what `look` finds once it finds something.

        Raises:
            RateLimited: too much of the organization's waits.
            Unavailable: too much of all does, or no replica came in time.
        """
        with self._place(model, bounds.requests, organization):
            try:
                async with asyncio.timeout(bounds.wait_s):
                    while True:
                        self._replicas.call_for(model)
                        await self._replicas.looked()
                        if (found := look()) is not None:
                            return found
            except TimeoutError:
                raise Unavailable(
                    f"The model '{model}' was asleep and did not wake up in time. Please try again shortly.",
                    retry_after_s=RETRY_AFTER_S,
                ) from None

    @contextmanager
    def _place(self, model: str, places: int, organization: OrganizationId) -> Iterator[None]:
        waiting = self._waiting.setdefault(model, Counter())
        free = places - waiting.total()
        if free <= 0:
            raise Unavailable(
                f"Too many requests wait for the model '{model}' to wake up. Please try again shortly.",
                retry_after_s=RETRY_AFTER_S,
            )
        if waiting[organization] >= free:
            raise RateLimited(
                f"Too many requests of organization {organization} wait for the model '{model}' to wake up. Please try"
                " again shortly.",
                retry_after_s=RETRY_AFTER_S,
            )
        waiting[organization] += 1
        try:
            yield
        finally:
            waiting[organization] -= 1
            if not waiting[organization]:
                del waiting[organization]
