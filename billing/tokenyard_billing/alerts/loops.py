"""Finds out from SQL which budgets have reached a percent that is to be told, and writes each down once a month."""

import logging
import time
from collections.abc import Collection, Sequence

from prometheus_client import CollectorRegistry, Counter
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId, random_text
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage import bulk
from tokenyard.storage.database import Database, EventLog
from tokenyard.web.loops import Loop
from tokenyard_billing.alerts.use import ReachedPercent, budgets_in_use, reached
from tokenyard_billing.bucket_leases import BucketLeases, LeaseLost
from tokenyard_billing.ledger.journal import AccountName, balances
from tokenyard_billing.periods import month_of
from tokenyard_billing.ports import AlertRulesSource
from tokenyard_billing.tables import Balance, BudgetAlert, Spending

_LOG = logging.getLogger(__name__)

INTERVAL_S = 5.0
EVERYTHING_S = 300.0
"""So often all that was spent in the month is looked at: a limit may have been lowered since."""
OVERLAP_MS = 60_000  # clocks of workers differ, and a commit takes its time
BATCH = 200


class AlertMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._told = Counter(
            "tokenyard_budget_alerts",
            "Percents of budgets that were reached for the first time in a month.",
            ["budget"],
            registry=registry,
        )

    def told(self, alert: ReachedPercent) -> None:
        self._told.labels(alert.use.budget).inc()


class BudgetAlerts:
    """Works for the buckets that this worker leases, so that no two workers tell the same."""

    def __init__(
        self,
        *,
        database: Database,
        leases: BucketLeases,
        rules: AlertRulesSource,
        metrics: AlertMetrics,
        events: EventLog,
        clock: Clock,
    ) -> None:
        self._database = database
        self._leases = leases
        self._rules = rules
        self._metrics = metrics
        self._events = events
        self._clock = clock
        self._looked_at: frozenset[int] = frozenset()
        self._since_ms = 0
        self._everything_at = 0.0  # monotonic

    def loop(self) -> Loop:
        return Loop("budget alerts", self.step, INTERVAL_S)

    async def step(self) -> None:
        """Look at every organization whose balance changed since the last look, or at all of them."""
        now_ms, held = self._clock.now_ms(), self._leases.held
        everything = held != self._looked_at or time.monotonic() >= self._everything_at
        since_ms, after = (0 if everything else self._since_ms), ""
        while found := await self._changed(held, since_ms, after):
            for organization, alerts in (await self._new(found, month_of(now_ms))).items():
                await self._tell(organization, month_of(now_ms), alerts)
            after = found[-1]
        self._looked_at, self._since_ms = held, now_ms - OVERLAP_MS
        if everything:
            self._everything_at = time.monotonic() + EVERYTHING_S

    async def _changed(self, buckets: Collection[int], since_ms: int, after: str) -> list[OrganizationId]:
        query = select(Balance.organization).where(
            Balance.bucket.in_(buckets),
            Balance.account == AccountName.WALLET.value,
            Balance.updated_at_ms >= since_ms,
            Balance.organization > after,
        )
        async with self._database.reading() as session:
            found = await session.scalars(query.order_by(Balance.organization).limit(BATCH))
            return [OrganizationId(organization) for organization in found]

    async def _new(
        self, organizations: Sequence[OrganizationId], month: str
    ) -> dict[OrganizationId, list[ReachedPercent]]:
        """Return what is reached and not told yet."""
        used = Spending.spent + Spending.reserved
        spent = select(Spending.organization, Spending.scope, used).where(
            Spending.organization.in_(organizations), Spending.month == month, used > 0
        )
        columns = BudgetAlert.organization, BudgetAlert.budget, BudgetAlert.scope, BudgetAlert.percent
        told = select(*columns).where(BudgetAlert.organization.in_(organizations), BudgetAlert.month == month)
        spending: dict[OrganizationId, dict[str, int]] = {}
        async with self._database.reading() as session:
            for organization, scope, amount in await session.execute(spent):
                spending.setdefault(OrganizationId(organization), {})[scope] = amount
            wallets = await balances(session, spending, AccountName.WALLET)
            known = {tuple(row) for row in await session.execute(told)}
        rules = await self._rules.alert_rules(spending)
        found: dict[OrganizationId, list[ReachedPercent]] = {}
        for organization, of_one in rules.items():
            available = wallets[organization][0] if organization in wallets else 0
            uses = budgets_in_use(organization, spending[organization], of_one, available=available)
            for one in reached(uses, of_one.percents):
                if (organization, one.use.budget, one.use.scope, one.percent) not in known:
                    found.setdefault(organization, []).append(one)
        return found

    async def _tell(self, organization: OrganizationId, month: str, alerts: Sequence[ReachedPercent]) -> None:
        at_ms = self._clock.now_ms()
        rows = [
            {
                "organization": organization,
                "month": month,
                "budget": alert.use.budget,
                "scope": alert.use.scope,
                "percent": alert.percent,
                "id": f"alert_{random_text()}",
                "used": alert.use.used,
                "total": alert.use.total,
                "at_ms": at_ms,
            }
            for alert in alerts
        ]
        try:
            async with self._database.transaction() as session:
                await self._leases.fence(session, {bucket_of(organization)})
                await bulk.insert_new(session, BudgetAlert, rows)
                await self._write_events(session, organization, [str(row["id"]) for row in rows], at_ms)
        except LeaseLost as error:
            _LOG.info("the budgets of %s are looked at by another worker: %s", organization, error)
            return
        for alert in alerts:
            self._metrics.told(alert)
            _LOG.info("%s has used %d %% of %s of %s", organization, alert.percent, alert.use.budget, alert.use.scope)

    async def _write_events(
        self, session: AsyncSession, organization: OrganizationId, alerts: Sequence[str], at_ms: int
    ) -> None:
        """Write an event of each of these alerts that was written just now, and not by an earlier step."""
        for alert in await session.scalars(select(BudgetAlert).where(BudgetAlert.id.in_(alerts))):
            names = ("id", "budget", "scope", "month", "percent", "used", "total")
            data = {name: getattr(alert, name) for name in names}
            await self._events(session, organization, "budget.alert", data, at_ms=at_ms)
