"""Puts the loops of a worker's billing together."""

from redis.asyncio import Redis

from tokenyard.core.clock import Clock
from tokenyard.storage.database import AuditLog, Database, EventLog
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.loops import Loop
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.charging.consumer import LedgerConsumer
from tokenyard_billing.charging.intake import Intake
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.charging.open_requests import OpenRequests
from tokenyard_billing.charging.streams import UsageStreams
from tokenyard_billing.corrections.loops import CorrectionApplier
from tokenyard_billing.dunning.loops import DunningLoop
from tokenyard_billing.dunning.schedule import DunningSchedule
from tokenyard_billing.invoicing.closing import ClosingTerms
from tokenyard_billing.invoicing.loops import InvoiceDrafter, PeriodCloser
from tokenyard_billing.payments.loops import PaymentLoop
from tokenyard_billing.payments.ports import PaymentProvider
from tokenyard_billing.payments.posting import PaymentPosting
from tokenyard_billing.plan_fees.loops import PlanFeeCharger
from tokenyard_billing.ports import Blocking, LiveBudgets, PlanTerms
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.sealing.loops import DailySealer
from tokenyard_billing.top_ups.loops import AutomaticTopUpLoop
from tokenyard_billing.wallets.loops import BucketReadiness


class BillingWorker:
    """The ledger's side of one worker process. `name` is unique among the workers that run."""

    def __init__(
        self,
        *,
        name: str,
        database: Database,
        redis: Redis,
        prices: PriceList,
        plans: PlanTerms,
        outbox: TransactionalOutbox,
        live: LiveBudgets,
        metrics: LedgerMetrics,
        clock: Clock,
        report_wait_ms: int,
        lease_ms: int,
        renewal_ms: int,
        terms: ClosingTerms,
        audit: AuditLog,
        events: EventLog,
        blocking: Blocking,
        dunning: DunningSchedule,
        provider: PaymentProvider | None,
    ) -> None:
        """`lease_ms` and `renewal_ms` are those of holds; `report_wait_ms` is how long a report is awaited."""
        self.leases = BucketLeases(database, clock, name)
        self.consumer = LedgerConsumer(
            database=database,
            leases=self.leases,
            streams=UsageStreams(redis, name),
            intake=Intake(prices, plans, report_wait_ms=report_wait_ms),
            prices=prices,
            outbox=outbox,
            metrics=metrics,
            open_requests=OpenRequests(database, redis, live, orphan_ms=lease_ms + report_wait_ms),
        )
        self.readiness = BucketReadiness(database, self.leases, live, renewal_ms=renewal_ms)
        self.drafter = InvoiceDrafter(
            database=database, leases=self.leases, prices=prices, metrics=metrics, clock=clock
        )
        self.fees = PlanFeeCharger(
            database=database,
            leases=self.leases,
            prices=prices,
            plans=plans,
            outbox=outbox,
            metrics=metrics,
            clock=clock,
        )
        self.closer = PeriodCloser(
            database=database,
            leases=self.leases,
            fees=self.fees,
            drafter=self.drafter,
            outbox=outbox,
            metrics=metrics,
            clock=clock,
            terms=terms,
            audit=audit,
            events=events,
        )
        self.corrections = CorrectionApplier(
            database=database,
            leases=self.leases,
            prices=prices,
            outbox=outbox,
            metrics=metrics,
            clock=clock,
            terms=terms,
            audit=audit,
            events=events,
        )
        self.dunning = DunningLoop(
            database=database,
            leases=self.leases,
            outbox=outbox,
            metrics=metrics,
            clock=clock,
            audit=audit,
            blocking=blocking,
            schedule=dunning,
        )
        self.sealer = DailySealer(database, self.leases, clock)
        self.top_ups = (
            None
            if provider is None
            else AutomaticTopUpLoop(
                database=database,
                leases=self.leases,
                metrics=metrics,
                clock=clock,
                provider=provider.name,
                blocking=blocking,
            )
        )
        self.payments = (
            None
            if provider is None
            else PaymentLoop(
                database=database,
                leases=self.leases,
                outbox=outbox,
                metrics=metrics,
                clock=clock,
                provider=provider,
                posting=PaymentPosting(audit, events, blocking),
                audit=audit,
            )
        )

    def loops(self) -> list[Loop]:
        parts = (
            *(self.consumer, self.readiness, self.drafter, self.fees, self.closer, self.corrections, self.dunning),
            self.sealer,
        )
        with_provider = [part for part in (self.top_ups, self.payments) if part is not None]
        return [part.loop() for part in (*parts, *with_provider)]

    async def stop(self) -> None:
        """Hand the buckets over at once, after the loops have ended."""
        await self.leases.release()
