"""Brings budgets from SQL to Redis: all of a bucket when Redis is found empty, then whatever changed lately."""

import time
from collections.abc import Iterable

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import BudgetState, BudgetUpdate, wallet
from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.ports import LiveBudgets
from tokenyard_billing.tables import Balance, OpenRequest

INTERVAL_S = 1.0
REFRESH_S = 5.0
RECENT_MS = 60_000  # longer than this loop can pause after a failure
PAGE = 1_000


class BudgetLoader:
    """Works for the buckets that this worker leases. Monthly limits are loaded by admission when it first asks."""

    def __init__(
        self, database: Database, leases: BucketLeases, live: LiveBudgets, clock: Clock, *, renewal_ms: int
    ) -> None:
        self._database = database
        self._leases = leases
        self._live = live
        self._clock = clock
        # Holds rebuild themselves within two renewals; until then nobody knows how much of a budget is held.
        self._settling_s = 2 * renewal_ms / 1000
        self._found_empty: dict[int, float] = {}  # monotonic
        self._refresh_at = 0.0  # monotonic

    def loop(self) -> Loop:
        return Loop("budget loader", self.step, INTERVAL_S)

    async def step(self) -> None:
        """Load what is missing, refresh what changed."""
        held = self._leases.held
        ready = await self._live.ready_buckets(sorted(held))
        for bucket in sorted(held.difference(ready)):
            await self._load(bucket)
        if ready and time.monotonic() >= self._refresh_at:
            self._refresh_at = time.monotonic() + REFRESH_S
            since_ms = self._clock.now_ms() - RECENT_MS
            await self._push(ready, since_ms=since_ms, create=False)

    async def _load(self, bucket: int) -> None:
        found_at = self._found_empty.setdefault(bucket, time.monotonic())
        await self._push([bucket], since_ms=0, create=True)
        async with self._database.reading() as session:
            settled = not await _has_history(session, bucket) or time.monotonic() >= found_at + self._settling_s
        if settled:
            await self._live.set_ready(bucket)
            del self._found_empty[bucket]

    async def _push(self, buckets: Iterable[int], *, since_ms: int, create: bool) -> None:
        last = ""
        while True:
            query = (
                select(Balance.organization, Balance.amount, Balance.version)
                .where(
                    Balance.bucket.in_(list(buckets)),
                    Balance.account == AccountName.WALLET,
                    Balance.updated_at_ms >= since_ms,
                    Balance.organization > last,
                )
                .order_by(Balance.organization)
                .limit(PAGE)
            )
            async with self._database.reading() as session:
                rows = (await session.execute(query)).all()
            await self._live.apply([_update(*row, create) for row in rows])
            if len(rows) < PAGE:
                return
            last = rows[-1][0]


def _update(
    organization: str, amount: int, version: int, create: bool
) -> tuple[OrganizationId, tuple[BudgetUpdate, ...]]:
    owner = OrganizationId(organization)
    state = BudgetState(NanoDollars(amount), version)
    return owner, (BudgetUpdate(wallet(owner), state, create=create),)


async def _has_history(session: AsyncSession, bucket: int) -> bool:
    """Tell whether requests may be running that Redis should know of: some were charged, or wait to be."""
    charged = exists().where(Balance.bucket == bucket, Balance.account == AccountName.REVENUE)
    waiting = exists().where(OpenRequest.bucket == bucket)
    return bool(await session.scalar(select(charged | waiting)))
