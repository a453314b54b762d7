"""Applies the corrections that wait, in the buckets that this worker leases."""

from sqlalchemy import func, select, update

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import AuditLog, Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.loops import Loop
from tokenyard_billing.apart import Apart
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.charging.batch import raise_alarms
from tokenyard_billing.charging.decision import Finding
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.corrections.applying import apply_part
from tokenyard_billing.invoice_tables import Correction
from tokenyard_billing.invoicing.closing import ClosingTerms
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.wallets.changes import write_changes

INTERVAL_S = 2.0
BATCH = 100
RETRY_MS = 60_000
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
    ) -> None:
        self._database = database
        self._leases = leases
        self._prices = prices
        self._outbox = outbox
        self._metrics = metrics
        self._clock = clock
        self._terms = terms
        self._audit = audit

    def loop(self) -> Loop:
        return Loop("apply corrections", self.step, INTERVAL_S)

    async def step(self) -> None:
        after = ""
        while due := await self._due(after):
            for organization in due:
                with Apart(organization, "the corrections") as apart:
                    await self._some_parts(organization)
                if apart.error:
                    await self._put_off(organization, apart.error)
            after = due[-1]

    async def _some_parts(self, organization: OrganizationId) -> None:
        for _ in range(PARTS):
            if not await self._part(organization):
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
                session, correction, prices=self._prices, terms=self._terms, audit=self._audit, now_ms=now_ms
            )
            messages = await write_changes(session, [changes], now_ms)
        await self._outbox.try_to_carry(messages)
        return True

    async def _due(self, after: str) -> list[OrganizationId]:
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
            return [OrganizationId(organization) for organization in await session.scalars(query)]

    async def _put_off(self, organization: OrganizationId, error: Exception) -> None:
        """Try again later, and raise an alarm. A database that is away raises here and ends the step."""
        now_ms = self._clock.now_ms()
        waiting = (Correction.organization == organization) & Correction.applied_at_ms.is_(None)
        async with self._database.transaction() as session:
            await self._leases.fence(session, {bucket_of(organization)})
            first = await session.scalar(select(func.min(Correction.id)).where(waiting))
            found = Finding("correction_failed", first or organization, f"{type(error).__name__}: {error}")
            await session.execute(update(Correction).where(waiting).values(retry_at_ms=now_ms + RETRY_MS))
            await raise_alarms(session, [(organization, found)], now_ms)
        self._metrics.correction_failed()
