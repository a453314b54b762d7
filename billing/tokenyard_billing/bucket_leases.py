"""Divides the buckets among the workers: whole buckets, so that one worker writes for one organization."""

import time
from collections.abc import Collection, Mapping

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.redis_keys import BUCKETS
from tokenyard.storage import bulk
from tokenyard.storage.database import Database
from tokenyard_billing.tables import BucketLease, Consumer

LEASE_MS = 15_000


class LeaseLost(Exception):
    """Another worker holds a bucket now: nothing may be written for it."""


class BucketLeases:
    """This worker's share. A lease that ran out is free for all; every commit proves that its leases still hold."""

    def __init__(self, database: Database, clock: Clock, name: str, *, lease_ms: int = LEASE_MS) -> None:
        self._database = database
        self._clock = clock
        self._name = name
        self._lease_ms = lease_ms
        self._held: frozenset[int] = frozenset()
        self._renew_at = 0.0  # monotonic

    @property
    def held(self) -> frozenset[int]:
        """The buckets of the last `hold`."""
        return self._held

    @property
    def due(self) -> bool:
        """Tell whether the next `hold` asks the database."""
        return time.monotonic() >= self._renew_at

    async def hold(self, watermarks: Mapping[int, int]) -> frozenset[int]:
        """Renew what is held, take what is free up to a fair share, give up what is above; return what is held.

        `watermarks`: for each bucket, the Redis time before which everything is committed. Cheap when called often.
        """
        if self.due:
            now_ms = self._clock.now_ms()
            async with self._database.transaction() as session:
                share = await self._share(session, now_ms)
                self._held = await self._take(session, now_ms, share)
                await self._note(session, watermarks)
            self._renew_at = time.monotonic() + self._lease_ms / 3000
        return self._held

    async def fence(self, session: AsyncSession, buckets: Collection[int]) -> None:
        """Prove in the caller's transaction that `buckets` are held (else `LeaseLost`), and lengthen their leases."""
        until_ms = self._clock.now_ms() + self._lease_ms
        mine = update(BucketLease).where(BucketLease.bucket.in_(sorted(buckets)), BucketLease.holder == self._name)
        kept = (await session.execute(mine.values(lease_until_ms=until_ms).returning(BucketLease.bucket))).all()
        if len(kept) != len(buckets):
            self._renew_at = 0.0
            raise LeaseLost(f"{self._name} holds {len(kept)} of {len(buckets)} buckets")

    async def release(self) -> None:
        """Give everything up, so that another worker need not wait for the leases to run out."""
        async with self._database.transaction() as session:
            await session.execute(
                update(BucketLease).where(BucketLease.holder == self._name).values(holder="", lease_until_ms=0)
            )
            await session.execute(update(Consumer).where(Consumer.name == self._name).values(alive_until_ms=0))
        self._held, self._renew_at = frozenset(), 0.0

    async def _share(self, session: AsyncSession, now_ms: int) -> int:
        row = {"name": self._name, "alive_until_ms": now_ms + self._lease_ms}
        await bulk.insert_new(session, Consumer, [row])
        await session.execute(update(Consumer).where(Consumer.name == self._name).values(**row))
        alive = select(func.count()).select_from(Consumer).where(Consumer.alive_until_ms > now_ms)
        return -(-BUCKETS // (await session.scalar(alive) or 1))

    async def _take(self, session: AsyncSession, now_ms: int, share: int) -> frozenset[int]:
        every = [{"bucket": b, "holder": "", "lease_until_ms": 0, "watermark_ms": 0} for b in range(BUCKETS)]
        known = await session.scalar(select(func.count()).select_from(BucketLease))
        if known != BUCKETS:
            await bulk.insert_new(session, BucketLease, every)
        mine = (await session.scalars(select(BucketLease.bucket).where(BucketLease.holder == self._name))).all()
        keep = set(sorted(mine)[:share])
        if surplus := set(mine) - keep:
            await session.execute(
                update(BucketLease)
                .where(BucketLease.bucket.in_(surplus), BucketLease.holder == self._name)
                .values(holder="", lease_until_ms=0)
            )
        free = await session.scalars(select(BucketLease.bucket).where(BucketLease.lease_until_ms < now_ms))
        wanted = keep | set(sorted(set(free) - keep)[: share - len(keep)])
        taken = await session.scalars(
            update(BucketLease)
            .where(
                BucketLease.bucket.in_(wanted),
                (BucketLease.lease_until_ms < now_ms) | (BucketLease.holder == self._name),
            )
            .values(holder=self._name, lease_until_ms=now_ms + self._lease_ms)
            .returning(BucketLease.bucket)
        )
        return frozenset(taken)

    async def _note(self, session: AsyncSession, watermarks: Mapping[int, int]) -> None:
        for bucket in self._held & watermarks.keys():
            newer = (BucketLease.bucket == bucket) & (BucketLease.watermark_ms < watermarks[bucket])
            await session.execute(update(BucketLease).where(newer).values(watermark_ms=watermarks[bucket]))
