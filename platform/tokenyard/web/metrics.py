"""Prometheus: bounded labels, the buckets of our histograms, and the page that is scraped."""

import asyncio
import time

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
INTER_TOKEN_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5)
OTHER = "other"


class BoundedLabel:
    """Lets the first `limit` values of a label through and calls all later ones `other`.

    A label that follows what tenants do must not grow without end: each value is one more time series.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(value)
        return value


def process_registry() -> CollectorRegistry:
    """Return a registry of one process, which tells of the process itself: memory, CPU time, garbage collection."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


class MetricsPage:
    """With many series it takes long to make: it is made in a thread, for all who asked before it was begun, and making
    it takes a twentieth of the time at most.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._turn = asyncio.Lock()
        self._rests_until = 0.0
        self._next: asyncio.Task[bytes] | None = None

    async def read(self) -> bytes:
        if self._next is None:
            self._next = asyncio.create_task(self._make())
        return await asyncio.shield(self._next)

    async def _make(self) -> bytes:
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rests_until - time.monotonic()))
            self._next = None  # who asks from now on wants to know more
            began = time.monotonic()
            page = await asyncio.to_thread(generate_latest, self._registry)
            ended = time.monotonic()
            self._rests_until = ended + 19 * (ended - began)
            return page


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    router = APIRouter(tags=["process"])
    page = MetricsPage(registry)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(await page.read(), media_type=CONTENT_TYPE_LATEST)

    return router
