"""A worker's invoices at a clock that is moved by hand, and what changes them."""

from redis.asyncio import Redis
from sqlalchemy import update

from support.billing.stand import ACME, MARCH_MS, TERMS, budget_outbox, claims, rows, send, settled, usage, worker
from support.fakes.clock import FrozenClock
from tokenyard.core.ids import OrganizationId, new_request_id
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard_billing.invoice_tables import Invoice, StaleInvoice
from tokenyard_billing.invoicing.closing import ClosingTerms
from tokenyard_billing.tables import BucketLease
from tokenyard_billing.wallets.store import Wallet


class InvoiceBooks:
    """`worker` consumes and drafts; the clock decides when a grant counts."""

    def __init__(self, database: Database, redis: Redis, terms: ClosingTerms = TERMS) -> None:
        self.database = database
        self.redis = redis
        self.clock = FrozenClock(MARCH_MS / 1000)
        self.worker = worker(database, redis, clock=self.clock, terms=terms)
        self.wallet = Wallet(database, budget_outbox(database, redis, self.clock), self.clock)

    async def grant(self, amount: int, organization: OrganizationId = ACME, *, key: str | None = None) -> None:
        await self.wallet.grant(
            organization, NanoDollars(amount), reason="paid", actor="op", idempotency_key=key or new_request_id()
        )

    async def use(self, amount: int, organization: OrganizationId = ACME, *, at_ms: int = MARCH_MS) -> None:
        """Charge `amount` nano-dollars, a multiple of the rate of 100."""
        made = claims(new_request_id(), organization=organization, admitted_at_ms=at_ms)
        await send(self.redis, settled(made, usage(amount // 100, 0)))
        await self.worker.consumer.step()

    async def draft(self) -> None:
        await self.worker.drafter.step()

    async def close(self) -> None:
        """Let the watermark of every bucket be where the clock is, and close what is due."""
        await self.worker.consumer.step()
        async with self.database.transaction() as session:
            await session.execute(update(BucketLease).values(watermark_ms=self.clock.now_ms()))
        await self.worker.closer.step()

    async def invoice(self, period: str, organization: OrganizationId = ACME) -> Invoice:
        """Return the stored invoice of a period."""
        [found] = [
            one
            for one in await rows(self.database, Invoice)
            if (one.organization, one.period) == (organization, period)
        ]
        assert isinstance(found, Invoice)
        return found

    async def bills(self, organization: OrganizationId = ACME) -> list[tuple[str, int, int, int]]:
        """Return period, total, credit applied and amount due of each stored invoice, oldest first."""
        found = sorted(await rows(self.database, Invoice), key=lambda one: str(one.period))
        return [
            (one.period, one.total, one.credit_applied, one.amount_due)
            for one in found
            if one.organization == organization
        ]

    async def marks(self) -> dict[tuple[str, str], int]:
        return {(one.organization, one.period): one.marks for one in await rows(self.database, StaleInvoice)}
