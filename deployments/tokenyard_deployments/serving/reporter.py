"""Sends usage reports to Redis in the background, through the durable outbox."""

from pathlib import Path

from tokenyard.metering.connection import connect_redis
from tokenyard.metering.events import ReplicaReported
from tokenyard.metering.stream import report_outbox


class Reporter:
    """One for each replica. `folder` may be shared with other replicas, also with those that are gone."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._redis = connect_redis(redis_url)
        self._outbox = report_outbox(self._redis, folder)

    def start(self) -> None:
        """Begin to send what is on disk, also from replicas that are gone."""
        self._outbox.start()

    @property
    def full(self) -> bool:
        return self._outbox.full

    def report(self, event: ReplicaReported) -> None:
        """Send `event` in the background; no cancellation of the caller reaches it."""
        self._outbox.send(event)

    async def close(self) -> None:
        """Wait until everything is sent or on disk."""
        await self._outbox.close()
        await self._redis.aclose()
