"""Does a worker's work organization by organization, and keeps one's trouble from the others."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from sqlalchemy import Update

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import Database
from tokenyard_billing.bucket_leases import BucketLeases, LeaseLost
from tokenyard_billing.charging.batch import raise_alarms
from tokenyard_billing.charging.decision import Finding
from tokenyard_billing.charging.metrics import LedgerMetrics

_LOG = logging.getLogger(__name__)

BATCH = 100
"""So many organizations are looked up at a time."""
RETRY_MS = 60_000


class Due(msgspec.Struct, frozen=True):
    """Work of one organization that waits."""

    organization: OrganizationId


DueT = TypeVar("DueT", bound=Due)


class Apart:
    """The organizations of the buckets that a worker leases, each by itself."""

    def __init__(self, database: Database, leases: BucketLeases, metrics: LedgerMetrics, clock: Clock) -> None:
        self._database = database
        self._leases = leases
        self._metrics = metrics
        self._clock = clock

    async def each(
        self,
        name: str,
        due: Callable[[str], Awaitable[Sequence[DueT]]],
        work: Callable[[DueT], Awaitable[None]],
        put_off: Callable[[DueT, Exception], Awaitable[None]],
    ) -> None:
        """Do `work` on all that `due` finds behind an organization, in the order of organizations.

        What fails, however it does, is put off; that another worker has the bucket is no failure.
        """
        after = ""
        while found := await due(after):
            for one in found:
                try:
                    await work(one)
                except LeaseLost as error:
                    _LOG.info("%s: %s is another worker's: %s", name, one, error)
                except Exception as error:  # of any kind
                    _LOG.exception("%s failed: %s", name, one)
                    await put_off(one, error)
            after = found[-1].organization

    async def put_off(
        self, organization: OrganizationId, rows: Update | None, kind: str, subject: str, error: Exception
    ) -> None:
        """Let `rows`, if any, be due in a minute, and raise an alarm.

        A database that is away raises here and ends the step.
        """
        now_ms = self._clock.now_ms()
        found = Finding(kind, subject, f"{type(error).__name__}: {error}")
        async with self._database.transaction() as session:
            await self._leases.fence(session, {bucket_of(organization)})
            if rows is not None:
                await session.execute(rows.values(retry_at_ms=now_ms + RETRY_MS))
            await raise_alarms(session, [(organization, found)], now_ms)
        self._metrics.alarm_raised(kind)
