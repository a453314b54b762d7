"""Keeps the stored drafts of invoices up to date."""

import logging

from sqlalchemy import func, select, update

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop
from tokenyard_billing.bucket_leases import BucketLeases, LeaseLost
from tokenyard_billing.charging.batch import raise_alarms
from tokenyard_billing.charging.decision import Finding
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.invoicing.drafts import Drafts, draw, invoice_id, keep
from tokenyard_billing.invoicing.tables import StaleInvoice
from tokenyard_billing.pricing.prices import PriceList

_LOG = logging.getLogger(__name__)

INTERVAL_S = 2.0
BATCH = 100
RETRY_MS = 60_000


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
        self._metrics = metrics
        self._clock = clock

    def loop(self) -> Loop:
        return Loop("draft invoices", self.step, INTERVAL_S)

    async def step(self) -> None:
        """Draw once for each organization with a mark: none waits behind one that is always marked, or always fails."""
        after = ""
        while due := await self._due(after):
            for organization, first in due:
                try:
                    await self.keep(await self.draw(organization))
                except LeaseLost as error:
                    _LOG.info("%s is drawn by another worker: %s", organization, error)
                except Exception as error:  # of any kind: it must not stop the others
                    _LOG.exception("the invoices of %s from %s on cannot be drawn", organization, first)
                    await self._put_off(organization, first, error)
            after = due[-1][0]

    async def draw(self, organization: OrganizationId) -> Drafts:
        async with self._database.reading() as session:
            return await draw(session, organization, self._prices, self._clock.now_ms())

    async def keep(self, drafts: Drafts) -> None:
        """Write down what was drawn, or raise `LeaseLost`."""
        async with self._database.transaction() as session:
            await self._leases.fence(session, {bucket_of(drafts.organization)})
            await keep(session, drafts)

    async def _due(self, after: str) -> list[tuple[OrganizationId, str]]:
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
            return [(OrganizationId(organization), first) for organization, first in await session.execute(query)]

    async def _put_off(self, organization: OrganizationId, first: str, error: Exception) -> None:
        """Keep the marks for later, and raise an alarm. A database that is away raises here and ends the step."""
        now_ms = self._clock.now_ms()
        found = Finding("invoice_failed", invoice_id(organization, first), f"{type(error).__name__}: {error}")
        marked = update(StaleInvoice).where(StaleInvoice.organization == organization)
        async with self._database.transaction() as session:
            await self._leases.fence(session, {bucket_of(organization)})
            await session.execute(marked.values(retry_at_ms=now_ms + RETRY_MS))
            await raise_alarms(session, [(organization, found)], now_ms)
        self._metrics.invoice_failed()
