"""Seals each day once it is over: in order, without gaps, one worker at a time."""

import logging

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.storage import bulk
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop
from tokenyard_billing.bucket_leases import BucketLeases, LeaseLost
from tokenyard_billing.periods import HOUR_MS
from tokenyard_billing.sealing.canonical import seal_hash
from tokenyard_billing.sealing.days import day_after, end_ms
from tokenyard_billing.sealing.lines import DayDigest, digest_of, sealed_parts
from tokenyard_billing.sealing.merkle import merkle_root
from tokenyard_billing.sealing.owners import first_day, owners_behind
from tokenyard_billing.sealing.tables import Seal, SealedPart

INTERVAL_S = 60.0
MARGIN_MS = HOUR_MS
"""How long after a day's end it is sealed.

Rows are dated before their transaction begins. That may wait for a connection, for locks and for an idle client, each
10 to 30 seconds at most, and clocks of machines differ by seconds: together minutes.
"""
STATEMENT_TIMEOUT_S = 600.0
BUCKET = 0
"""Whoever leases this bucket seals."""
_LOG = logging.getLogger(__name__)


class DailySealer:
    """A day's parts are written first, each batch in a short transaction of its own, and then its seal.

    What dies between two steps goes on behind the last part that was written: a day that is over does not change.
    """

    def __init__(self, database: Database, leases: BucketLeases, clock: Clock) -> None:
        self._database = database
        self._leases = leases
        self._clock = clock

    def loop(self) -> Loop:
        return Loop("seal days", self.step, INTERVAL_S)

    async def step(self) -> None:
        """Seal all days that are due."""
        if BUCKET not in self._leases.held:
            return
        try:
            while (day := await self._due()) is not None:
                await self._write_parts(day)
                await self._seal(day)
        except LeaseLost as error:
            _LOG.info("sealing is another worker's: %s", error)

    async def _due(self) -> str | None:
        async with self._database.reading(statement_timeout_s=STATEMENT_TIMEOUT_S) as session:
            last = await session.scalar(select(func.max(Seal.day)))
            day = await first_day(session) if last is None else day_after(last)
        return day if day is not None and end_ms(day) + MARGIN_MS <= self._clock.now_ms() else None

    async def _write_parts(self, day: str) -> None:
        async with self._database.reading() as session:
            after = await session.scalar(select(func.max(SealedPart.organization)).where(SealedPart.day == day)) or ""
        while True:
            async with self._database.reading(statement_timeout_s=STATEMENT_TIMEOUT_S) as session:
                owners = await owners_behind(session, day, after)
                found = [await digest_of(session, day, owner.organization) for owner in owners if owner.recorded]
            if not owners:
                return
            if found:
                await self._write(day, found)
            after = owners[-1].organization

    async def _write(self, day: str, parts: list[DayDigest]) -> None:
        rows = [{"day": day, **msgspec.structs.asdict(part)} for part in parts]
        async with self._database.transaction() as session:
            await self._leases.fence(session, {BUCKET})
            await bulk.insert_new(session, SealedPart, rows)

    async def _seal(self, day: str) -> None:
        async with self._database.reading() as session:
            parts = await sealed_parts(session, day)
        root = merkle_root([part.leaf for part in parts]).hex()
        async with self._database.transaction() as session:
            await self._leases.fence(session, {BUCKET})
            last = await _last(session)
            if last is not None and last.day >= day:
                return  # another worker had the lease meanwhile
            previous = "" if last is None else last.hash
            session.add(
                Seal(
                    day=day,
                    previous=previous,
                    root=root,
                    organizations=len(parts),
                    hash=seal_hash(day, previous=previous, root=root, organizations=len(parts)),
                    sealed_at_ms=self._clock.now_ms(),
                )
            )


async def _last(session: AsyncSession) -> Seal | None:
    return await session.scalar(select(Seal).order_by(Seal.day.desc()).limit(1))
