"""A worker's invoices at a clock that is moved by hand, and what changes them."""

from typing import Any

from redis.asyncio import Redis
from sqlalchemy import update

from support.billing.stand import (
    ACME,
    MARCH_MS,
    TERMS,
    budget_outbox,
    claims,
    journal_sum,
    reconciler,
    rows,
    send,
    settled,
    usage,
    worker,
)
from support.fakes.clock import FrozenClock
from support.fakes.rate_cards import SHIPPED_CARDS, rate_card
from tokenyard.core.ids import ApiKeyId, OrganizationId, new_request_id
from tokenyard.core.money import NanoDollars
from tokenyard.core.usage import TokenUsage
from tokenyard.storage.database import Database, EventLog
from tokenyard.tenancy.blocking import OrganizationBlocks
from tokenyard.tenancy.store import record
from tokenyard.webhooks.events import write_event
from tokenyard_billing.corrections.operator_store import CorrectionOperatorStore
from tokenyard_billing.corrections.selection import Scope
from tokenyard_billing.invoice_tables import Correction, Invoice, StaleInvoice
from tokenyard_billing.invoicing.closing import ClosingTerms
from tokenyard_billing.invoicing.settling import InvoiceSettlements
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import BucketLease
from tokenyard_billing.wallets.store import Wallet

YEAR_2100_MS = 4_102_444_800_000
CHEAP = rate_card("cheap", YEAR_2100_MS, output="0.20")
DEAR = rate_card("dear", YEAR_2100_MS + 1, output="0.80")
"""Cards that are not in force: half and twice the shipped card's 400 nano-dollars for a token of output."""
OPERATOR = ApiKeyId("key_operator")


class InvoiceBooks:
    """`worker` consumes and drafts; the clock decides when a grant counts."""

    def __init__(self, database: Database, redis: Redis, terms: ClosingTerms = TERMS, **more: Any) -> None:
        """`more` is what `stand.worker` takes."""
        self.database = database
        self.redis = redis
        self.clock = FrozenClock(MARCH_MS / 1000)
        prices = PriceList((*SHIPPED_CARDS, CHEAP, DEAR))
        self.worker = worker(database, redis, clock=self.clock, prices=prices, terms=terms, **more)
        self.corrections = CorrectionOperatorStore(database, prices, record, self.clock)
        self.outbox = budget_outbox(database, redis, self.clock)
        self.wallet = Wallet(database, self.outbox, write_event, self.clock)

    def settling(self, events: EventLog = write_event) -> InvoiceSettlements:
        """Return what ends invoices; `events` is told of it."""
        return InvoiceSettlements(
            database=self.database,
            audit=record,
            events=events,
            clock=self.clock,
            blocking=OrganizationBlocks(),
            outbox=self.outbox,
        )

    async def grant(self, amount: int, organization: OrganizationId = ACME, *, key: str | None = None) -> None:
        await self.wallet.grant(
            organization, NanoDollars(amount), reason="paid", actor="op", idempotency_key=key or new_request_id()
        )

    async def use(self, amount: int, organization: OrganizationId = ACME, *, at_ms: int = MARCH_MS) -> None:
        """Charge `amount` nano-dollars, a multiple of the rate of 100."""
        made = claims(new_request_id(), organization=organization, admitted_at_ms=at_ms)
        await send(self.redis, settled(made, usage(amount // 100, 0)))
        await self.worker.consumer.step()

    async def spend(self, request: str, count: TokenUsage, *, at_ms: int = MARCH_MS) -> None:
        """Charge a request of a known id."""
        await send(self.redis, settled(claims(request, admitted_at_ms=at_ms), count))
        await self.worker.consumer.step()

    async def correct(self, card: str | None = None, *, once: str | None = None, **scope: Any) -> Correction:
        """Ask for a correction, and let the worker apply it."""
        asked = await self.corrections.request(
            ACME, Scope(**scope), card, reason="wrong", actor=OPERATOR, idempotency_key=once or new_request_id()
        )
        await self.worker.corrections.step()
        return await self.corrections.correction(asked.id)

    async def draft(self) -> None:
        await self.worker.drafter.step()

    async def close(self) -> None:
        """Let the watermark of every bucket be where the clock is, and close what is due."""
        await self.worker.consumer.step()
        await self.worker.fees.step()
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

    async def broken(self) -> set[tuple[str, str]]:
        """Return the names and subjects of what reconcile finds broken once no message waits for Redis."""
        await self.outbox.step()
        found = await reconciler(self.database, self.redis, clock=self.clock).reconcile()
        assert found.ok == (not any(one.broken for one in found.differences))
        return {(one.name, one.subject) for one in found.differences if one.broken}

    async def agree(self) -> None:
        """Every check of the books passes, as they are and once drafts are drawn."""
        for _ in range(2):
            found = await self.broken()
            assert not found, found  # pytest shows nothing of asserts here
            await self.draft()
        assert await journal_sum(self.database) == 0
