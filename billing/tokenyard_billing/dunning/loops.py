"""Takes the steps of dunning that are due, in the buckets that this worker leases."""

from collections.abc import Sequence

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import AuditLog, Database
from tokenyard.storage.transactional_outbox import OutboxMessage, TransactionalOutbox
from tokenyard.web.loops import Loop
from tokenyard_billing.apart import BATCH, Apart, Due
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.dunning.blocks import end_dunning, review_block
from tokenyard_billing.dunning.schedule import DunningSchedule
from tokenyard_billing.dunning.tables import Dunning, DunningException
from tokenyard_billing.invoice_tables import BillingPeriod, Invoice
from tokenyard_billing.ports import Blocking

INTERVAL_S = 10.0
ACTOR = ApiKeyId("worker")
_ENDED = ("paid", "void")


class DueDunning(Due, frozen=True):
    """`invoice` is overdue, and its next step is due; or it has ended, and still blocks."""

    invoice: str


class DunningLoop:
    """One invoice of each organization in a step."""

    def __init__(
        self,
        *,
        database: Database,
        leases: BucketLeases,
        outbox: TransactionalOutbox,
        metrics: LedgerMetrics,
        clock: Clock,
        audit: AuditLog,
        blocking: Blocking,
        schedule: DunningSchedule,
    ) -> None:
        self._database = database
        self._leases = leases
        self._outbox = outbox
        self._clock = clock
        self._audit = audit
        self._blocking = blocking
        self._schedule = schedule
        self._apart = Apart(database, leases, metrics, clock)

    def loop(self) -> Loop:
        return Loop("dunning", self.step, INTERVAL_S)

    async def step(self) -> None:
        """First let go whom a credit note has freed: those who settle an invoice see to that themselves."""
        await self._apart.each("end dunning", self._ended, self._end, self._put_off)
        await self._apart.each("dunning", self._due, self._take_step, self._put_off)

    async def _due(self, after: str) -> list[DueDunning]:
        return await self._found(self._overdue(), after)

    async def _ended(self, after: str) -> list[DueDunning]:
        ended = (
            select(Invoice.organization, func.min(Invoice.id))
            .join(Dunning, Dunning.invoice == Invoice.id)
            .where(Dunning.blocks, Invoice.state.in_(_ENDED), Dunning.bucket.in_(self._leases.held))
        )
        return await self._found(ended, after)

    async def _found(self, query: Select[str, str], after: str) -> list[DueDunning]:
        part = query.where(Invoice.organization > after).group_by(Invoice.organization)
        async with self._database.reading() as session:
            rows = await session.execute(part.order_by(Invoice.organization).limit(BATCH))
            return [DueDunning(OrganizationId(organization), invoice) for organization, invoice in rows]

    def _overdue(self) -> Select[str, str]:
        """Return those whose next step is due, one of each organization once that is grouped."""
        now_ms = self._clock.now_ms()
        period = (BillingPeriod.organization == Invoice.organization) & (BillingPeriod.period == Invoice.period)
        excepted = DunningException.exempt | (DunningException.paused_until_ms > now_ms)
        return (
            select(Invoice.organization, func.min(Invoice.id))
            .join(BillingPeriod, period)
            .outerjoin(Dunning, Dunning.invoice == Invoice.id)
            .outerjoin(DunningException, DunningException.organization == Invoice.organization)
            .where(
                Invoice.state == "open",
                BillingPeriod.bucket.in_(self._leases.held),
                self._schedule.is_due(now_ms),
                or_(Dunning.retry_at_ms.is_(None), Dunning.retry_at_ms <= now_ms),
                or_(DunningException.organization.is_(None), ~excepted),
            )
        )

    async def _take_step(self, due: DueDunning) -> None:
        messages: Sequence[OutboxMessage] = []
        async with self._database.transaction() as session:
            now_ms = self._clock.now_ms()
            await self._leases.fence(session, {bucket_of(due.organization)})
            # Nothing ends it from here to the commit.
            await session.execute(select(Invoice.id).where(Invoice.id == due.invoice).with_for_update())
            still = self._overdue().where(Invoice.id == due.invoice).group_by(Invoice.organization)
            if (await session.execute(still)).first() and await self._note_step(session, due, now_ms):
                messages = await review_block(session, due.organization, self._blocking, actor=ACTOR, at_ms=now_ms)
        await self._outbox.try_to_carry(messages)

    async def _note_step(self, session: AsyncSession, due: DueDunning, now_ms: int) -> bool:
        """Write the next step down, and tell whether it blocks. What blocks goes on to, however the schedule grows."""
        row = await session.get(Dunning, due.invoice)
        if row is None:
            bucket = bucket_of(due.organization)
            row = Dunning(invoice=due.invoice, organization=due.organization, bucket=bucket, steps=0, blocks=False)
            session.add(row)
        before = row.steps
        row.steps = max(before, min(before + 1, self._schedule.steps))
        row.stepped_at_ms, row.retry_at_ms = now_ms, 0
        row.blocks = row.blocks or row.steps >= self._schedule.steps
        self._audit(
            *(session, due.organization, ACTOR, "invoice.dunned", due.invoice),
            at=now_ms // 1000,
            details={"steps": row.steps, "of": self._schedule.steps, "blocks": row.blocks},
            before={"steps": before},
        )
        await session.flush()
        return row.blocks

    async def _end(self, due: DueDunning) -> None:
        async with self._database.transaction() as session:
            now_ms = self._clock.now_ms()
            await self._leases.fence(session, {bucket_of(due.organization)})
            messages = await end_dunning(
                session, due.organization, due.invoice, self._blocking, actor=ACTOR, at_ms=now_ms
            )
        await self._outbox.try_to_carry(messages)

    async def _put_off(self, due: DueDunning, error: Exception) -> None:
        own = update(Dunning).where(Dunning.invoice == due.invoice)
        await self._apart.put_off(due.organization, own, "dunning_failed", due.invoice, error)
