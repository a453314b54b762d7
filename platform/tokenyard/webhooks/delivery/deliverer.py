"""Sends what is due, many at once; those that take long hold up no others."""

import asyncio
import logging
from typing import Self

from tokenyard.core.clock import Clock
from tokenyard.webhooks.delivery.metrics import WebhookMetrics
from tokenyard.webhooks.delivery.operator_store import DueDelivery, WebhookOperatorStore
from tokenyard.webhooks.delivery.sending import AT_ONCE, EndpointAnswer, WebhookSender
from tokenyard.webhooks.event import signed_headers

_LOG = logging.getLogger(__name__)

AT_ONCE_TO_FAILING = AT_ONCE // 2
"""Endpoints that answer are never all held up by those that do not."""
_NO_SECRET = EndpointAnswer(0, error="The signing secret cannot be read any more. Rotate it.")


class WebhookDeliverer:
    """Used as `async with`: what is under way at its end is given up, and sent again once its lease is over."""

    def __init__(
        self, store: WebhookOperatorStore, sender: WebhookSender, metrics: WebhookMetrics, clock: Clock
    ) -> None:
        self._store = store
        self._sender = sender
        self._metrics = metrics
        self._clock = clock
        self._under_way: dict[asyncio.Task[None], DueDelivery] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        for task in self._under_way:
            task.cancel()
        await self.finish()

    async def step(self) -> None:
        """Begin to send what is due, as far as there is room; wait for none of it."""
        failing = sum(delivery.failing for delivery in self._under_way.values())
        free, free_for_failing = AT_ONCE - len(self._under_way), AT_ONCE_TO_FAILING - failing
        if free:
            for delivery in await self._store.claim(free=free, free_for_failing=free_for_failing):
                task = asyncio.create_task(self._deliver(delivery))
                self._under_way[task] = delivery
                task.add_done_callback(self._ended)

    async def finish(self) -> None:
        """Wait for all that is under way, each of which takes a bounded time."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def _deliver(self, delivery: DueDelivery) -> None:
        at_ms, body = self._clock.now_ms(), delivery.message.body()
        answer = _NO_SECRET
        if delivery.secrets:
            headers = signed_headers(delivery.message.id, body, delivery.secrets, at_s=at_ms // 1000)
            answer = await self._sender.send(delivery.url, headers, body)
        state = await self._store.note(delivery, answer, at_ms=at_ms)
        if state is not None:
            self._metrics.tried(state)

    def _ended(self, task: asyncio.Task[None]) -> None:
        delivery = self._under_way.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("%s to %s: not noted, so sent again: %r", delivery.message.id, delivery.endpoint, error)
