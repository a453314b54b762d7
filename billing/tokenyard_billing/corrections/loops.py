"""Applies the corrections that wait, in the buckets that this worker leases."""

from sqlalchemy import func, select, update

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import AuditLog, Database, EventLog
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.loops import Loop
from tokenyard_billing.apart import BATCH, Apart, Due
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.corrections.applying import apply_part
from tokenyard_billing.invoice_tables import Correction
from tokenyard_billing.invoicing.closing import ClosingTerms
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.wallets.changes import write_changes

INTERVAL_S = 2.0
PARTS = 10
"""In a step, of one organization: a long correction keeps nobody waiting."""


class CorrectionApplier:
    """Applies the corrections of an organization one after the other, in the order in which they were asked for."""

    def __init__(
        self,
        *,
        database: Database,
        leases: BucketLeases,
        prices: PriceList,
        outbox: TransactionalOutbox,
        metrics: LedgerMetrics,
        clock: Clock,
        terms: ClosingTerms,
        audit: AuditLog,
        events: EventLog,
    ) -> None:
        self._database = database
        self._leases = leases
        self._prices = prices
        self._outbox = outbox
        self._clock = clock
        self._apart = Apart(database, leases, metrics, clock)
        self._terms = terms
        self._audit = audit
        self._events = events

    def loop(self) -> Loop:
        return Loop("apply corrections", self.step, INTERVAL_S)

    async def step(self) -> None:
        await self._apart.each("apply corrections", self._due, self._some_parts, self._put_off)

    async def _some_parts(self, due: Due) -> None:
        for _ in range(PARTS):
            if not await self._part(due.organization):
                return

    async def _part(self, organization: OrganizationId) -> bool:
        """Apply the next part of the organization's oldest correction; tell whether there was one."""
        async with self._database.transaction() as session:
            now_ms = self._clock.now_ms()
            await self._leases.fence(session, {bucket_of(organization)})
            oldest = (
                select(Correction)
                .where(Correction.organization == organization, Correction.applied_at_ms.is_(None))
                .order_by(Correction.requested_at_ms, Correction.id)
                .limit(1)
            )
            correction = await session.scalar(oldest)
            if correction is None:
                return False
            changes = await apply_part(
                session,
                correction,
                prices=self._prices,
                terms=self._terms,
                audit=self._audit,
                events=self._events,
                now_ms=now_ms,
            )
            messages = await write_changes(session, [changes], now_ms)
        await self._outbox.try_to_carry(messages)
        return True

    async def _due(self, after: str) -> list[Due]:
        query = (
            select(Correction.organization)
            .where(
                Correction.bucket.in_(self._leases.held),
                Correction.applied_at_ms.is_(None),
                Correction.organization > after,
            )
            .group_by(Correction.organization)
            .having(func.max(Correction.retry_at_ms) <= self._clock.now_ms())
            .order_by(Correction.organization)
            .limit(BATCH)
        )
        async with self._database.reading() as session:
            return [Due(OrganizationId(organization)) for organization in await session.scalars(query)]

    async def _put_off(self, due: Due, error: Exception) -> None:
        waiting = (Correction.organization == due.organization) & Correction.applied_at_ms.is_(None)
        async with self._database.reading() as session:
            first = await session.scalar(select(func.min(Correction.id)).where(waiting))
        rows = update(Correction).where(waiting)
        await self._apart.put_off(due.organization, rows, "correction_failed", first or due.organization, error)
