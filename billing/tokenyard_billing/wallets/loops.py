"""Lets admission use the budgets of a Redis that was found empty, once it is known what is held of them."""

import time

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.ports import LiveBudgets
from tokenyard_billing.tables import Balance, OpenRequest

INTERVAL_S = 1.0


class BucketReadiness:
    """Works for the buckets that this worker leases. Admission itself loads each budget when it first asks for it."""

    def __init__(self, database: Database, leases: BucketLeases, live: LiveBudgets, *, renewal_ms: int) -> None:
        self._database = database
        self._leases = leases
        self._live = live
        # Holds rebuild themselves within two renewals; until then nobody knows how much of a budget is held.
        self._settling_s = 2 * renewal_ms / 1000
        self._found_empty: dict[int, float] = {}  # monotonic

    def loop(self) -> Loop:
        return Loop("bucket readiness", self.step, INTERVAL_S)

    async def step(self) -> None:
        """Make ready what has waited long enough."""
        held = self._leases.held
        ready = await self._live.ready_buckets(sorted(held))
        for bucket in sorted(held.difference(ready)):
            found_at = self._found_empty.setdefault(bucket, time.monotonic())
            async with self._database.reading() as session:
                settled = not await _has_history(session, bucket) or time.monotonic() >= found_at + self._settling_s
            if settled:
                await self._live.set_ready(bucket)
                del self._found_empty[bucket]


async def _has_history(session: AsyncSession, bucket: int) -> bool:
    """Tell whether requests may be running that Redis should know of: some were charged, or wait to be."""
    charged = exists().where(Balance.bucket == bucket, Balance.account == AccountName.REVENUE)
    waiting = exists().where(OpenRequest.bucket == bucket)
    return bool(await session.scalar(select(charged | waiting)))
