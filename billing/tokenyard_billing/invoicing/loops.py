"""Keeps the stored drafts of invoices up to date, and closes periods."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import func, select, update

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import AuditLog, Database, EventLog
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.loops import Loop
from tokenyard_billing.apart import BATCH, Apart
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.invoice_tables import BillingPeriod, StaleInvoice
from tokenyard_billing.invoicing.closing import ClosingTerms, DuePeriod, close, due_periods
from tokenyard_billing.invoicing.drafts import Drafts, draw, invoice_id, keep
from tokenyard_billing.plan_fees.loops import PlanFeeCharger
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.wallets.changes import write_changes

INTERVAL_S = 2.0
CLOSING_INTERVAL_S = 30.0


class InvoiceDrafter:
    """Draws stale invoices of the buckets that this worker leases, so that no two workers draw the same one.

    It reads outside of any writing transaction: a month of charges takes its time to sum.
    """

    def __init__(
        self, *, database: Database, leases: BucketLeases, prices: PriceList, metrics: LedgerMetrics, clock: Clock
    ) -> None:
        self._database = database
        self._leases = leases
        self._prices = prices
        self._clock = clock
        self._apart = Apart(database, leases, metrics, clock)
        self._drawing = asyncio.Lock()

    def loop(self) -> Loop:
        return Loop("draft invoices", self.step, INTERVAL_S)

    async def step(self) -> None:
        """Draw once for each organization with a mark: none waits behind one that is always marked, or always fails."""
        await self._apart.each("draw invoices", self._due, self._draw, self._put_off)

    async def _draw(self, due: DuePeriod) -> None:
        async with self.drawing(due.organization) as drafts:
            await self.keep(drafts)

    @asynccontextmanager
    async def drawing(self, organization: OrganizationId) -> AsyncIterator[Drafts]:
        """Draw, and let the caller keep it before anything else is drawn.

        A mark that another draw has deleted may be made anew meanwhile, and look like the one that was read.
        """
        async with self._drawing:
            yield await self.draw(organization)

    async def draw(self, organization: OrganizationId) -> Drafts:
        async with self._database.reading() as session:
            return await draw(session, organization, self._prices, self._clock.now_ms())

    async def keep(self, drafts: Drafts) -> None:
        """Write down what was drawn, or raise `LeaseLost`."""
        async with self._database.transaction() as session:
            await self._leases.fence(session, {bucket_of(drafts.organization)})
            await keep(session, drafts)

    async def _due(self, after: str) -> list[DuePeriod]:
        """Return at most `BATCH` organizations behind `after`, each with its first marked period."""
        query = (
            select(StaleInvoice.organization, func.min(StaleInvoice.period))
            .where(
                StaleInvoice.bucket.in_(self._leases.held),
                StaleInvoice.retry_at_ms <= self._clock.now_ms(),
                StaleInvoice.organization > after,
            )
            .group_by(StaleInvoice.organization)
            .order_by(StaleInvoice.organization)
            .limit(BATCH)
        )
        async with self._database.reading() as session:
            return [
                DuePeriod(OrganizationId(organization), first) for organization, first in await session.execute(query)
            ]

    async def _put_off(self, due: DuePeriod, error: Exception) -> None:
        marked = update(StaleInvoice).where(StaleInvoice.organization == due.organization)
        subject = invoice_id(due.organization, due.period)
        await self._apart.put_off(due.organization, marked, "invoice_failed", subject, error)


class PeriodCloser:
    """Closes what is due in the buckets that this worker leases, one period of each organization in a step."""

    def __init__(
        self,
        *,
        database: Database,
        leases: BucketLeases,
        fees: PlanFeeCharger,
        drafter: InvoiceDrafter,
        outbox: TransactionalOutbox,
        metrics: LedgerMetrics,
        clock: Clock,
        terms: ClosingTerms,
        audit: AuditLog,
        events: EventLog,
    ) -> None:
        self._database = database
        self._leases = leases
        self._fees = fees
        self._drafter = drafter
        self._outbox = outbox
        self._clock = clock
        self._apart = Apart(database, leases, metrics, clock)
        self._terms = terms
        self._audit = audit
        self._events = events

    def loop(self) -> Loop:
        return Loop("close periods", self.step, CLOSING_INTERVAL_S)

    async def step(self) -> None:
        await self._apart.each("close periods", self._due, self.close, self._put_off)

    async def close(self, due: DuePeriod) -> None:
        """Charge the plan's fees, draw what is marked, and close the period if nothing came meanwhile.

        It is drawn outside of the writing transaction.
        """
        await self._fees.charge(due.organization, due.period)
        async with self._drafter.drawing(due.organization) as drafts, self._database.transaction() as session:
            now_ms = self._clock.now_ms()
            await self._leases.fence(session, {bucket_of(due.organization)})
            changes = await close(
                session,
                drafts,
                due.period,
                terms=self._terms,
                audit=self._audit,
                events=self._events,
                now_ms=now_ms,
            )
            messages = await write_changes(session, changes, now_ms)
        await self._outbox.try_to_carry(messages)

    async def _due(self, after: str) -> list[DuePeriod]:
        now_ms = self._clock.now_ms()
        async with self._database.reading() as session:
            return await due_periods(session, self._leases.held, self._terms, now_ms, after=after, limit=BATCH)

    async def _put_off(self, due: DuePeriod, error: Exception) -> None:
        own = (BillingPeriod.organization == due.organization) & (BillingPeriod.period == due.period)
        subject = invoice_id(due.organization, due.period)
        await self._apart.put_off(
            due.organization, update(BillingPeriod).where(own), "period_not_closed", subject, error
        )
