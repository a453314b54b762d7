"""Sends usage reports to Redis in the background, through the durable outbox."""

import asyncio
from pathlib import Path

from tokenyard.metering.connection import COMMAND_TIMEOUT_S, connect_redis
from tokenyard.metering.events import ReplicaReported
from tokenyard.metering.stream import report_outbox


class Reporter:
    """One for each replica. `folder` may be shared with other replicas, also with those that are gone."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._redis = connect_redis(redis_url)
        self._outbox = report_outbox(self._redis, folder)
        self._sending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to send what is on disk, also from replicas that are gone."""
        self._outbox.start()

    @property
    def full(self) -> bool:
        return self._outbox.full

    def report(self, event: ReplicaReported) -> None:
        """Send `event` in the background; no cancellation of the caller reaches it."""
        task = asyncio.create_task(self._outbox.send(event))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """Wait until everything is sent or on disk."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=2 * COMMAND_TIMEOUT_S)
        await self._outbox.close()
        await self._redis.aclose()
