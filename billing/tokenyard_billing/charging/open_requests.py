"""Requests that wait for a report: which of them have waited long enough, and which will never get another report."""

from collections.abc import Iterable, Mapping

from redis.asyncio import Redis
from sqlalchemy import select, update

from tokenyard.core.ids import request_of
from tokenyard.core.redis_keys import request as request_key
from tokenyard.metering.events import HoldExpired
from tokenyard.metering.stream import emit
from tokenyard.storage.database import Database
from tokenyard_billing.charging.reports import load_reports
from tokenyard_billing.ports import LiveBudgets
from tokenyard_billing.tables import OpenRequest

LIMIT = 500
LOOK_EVERY_MS = 30_000


class OpenRequests:
    def __init__(self, database: Database, redis: Redis, live: LiveBudgets, *, orphan_ms: int) -> None:
        """`orphan_ms`: a request that only a replica spoke of is looked after when its report is this old."""
        self._database = database
        self._redis = redis
        self._live = live
        self._orphan_ms = orphan_ms
        self._looked_at_ms = 0

    async def overdue(self, watermarks: Mapping[int, int]) -> dict[str, int]:
        """Return requests (and their buckets) whose deadline is before their bucket's watermark."""
        if not watermarks:
            return {}
        query = (
            select(OpenRequest.request, OpenRequest.bucket, OpenRequest.deadline_ms)
            .where(OpenRequest.bucket.in_(sorted(watermarks)), OpenRequest.deadline_ms <= max(watermarks.values()))
            .order_by(OpenRequest.deadline_ms)
            .limit(LIMIT)
        )
        async with self._database.reading() as session:
            rows = (await session.execute(query)).all()
        return {request: bucket for request, bucket, deadline_ms in rows if (deadline_ms or 0) <= watermarks[bucket]}

    async def look_for_orphans(self, buckets: Iterable[int], now_ms: int) -> None:
        """Report the hold as expired of a request that only its replica spoke of, where Redis lost the hold too.

        A gateway that lives holds it still, or has settled it: in one step with dropping the hold, and so at an earlier
        place in the stream than what is emitted here.
        """
        if now_ms < self._looked_at_ms + min(LOOK_EVERY_MS, self._orphan_ms):
            return
        self._looked_at_ms = now_ms
        looked = []
        for bucket, event in await self._orphans(buckets, now_ms):
            request = request_of(event.claims.attempt)
            if not await self._live.is_ready(bucket):
                continue
            if not await self._redis.exists(request_key(bucket, request)):
                await emit(self._redis, event.claims.organization, event)
            looked.append(request)
        if looked:
            async with self._database.transaction() as session:
                await session.execute(
                    update(OpenRequest).where(OpenRequest.request.in_(looked)).values(looked_at_ms=now_ms)
                )

    async def _orphans(self, buckets: Iterable[int], now_ms: int) -> list[tuple[int, HoldExpired]]:
        query = (
            select(OpenRequest.request, OpenRequest.bucket)
            .where(
                OpenRequest.bucket.in_(sorted(buckets)),
                OpenRequest.deadline_ms.is_(None),
                OpenRequest.looked_at_ms < now_ms - self._orphan_ms,
            )
            .order_by(OpenRequest.looked_at_ms)
            .limit(LIMIT)
        )
        async with self._database.reading() as session:
            found = dict((await session.execute(query)).all())
            reports = await load_reports(session, found) if found else {}
        return [
            (bucket, HoldExpired(reports[request][0].claims, now_ms))
            for request, bucket in found.items()
            if request in reports
        ]
