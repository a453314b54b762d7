"""Books whose worker collects invoices by the local Stripe; the clock is moved by hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import ACME, CENTS, MARCH_MS, RATE, balance, rows, usage
from support.card_payments.account import GOOD
from support.card_payments.server import API_KEY, WEBHOOK_SECRET, StripeServer, stripe_server
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import CENT, NANO_PER_DOLLAR
from tokenyard.core.usage import TokenUsage
from tokenyard.storage.database import Database
from tokenyard.tenancy.blocking import OrganizationBlocks
from tokenyard.tenancy.store import record
from tokenyard.webhooks.events import write_event
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.dunning.schedule import DunningSchedule
from tokenyard_billing.payments.loops import POLL_MS, RETRY_MS, PaymentLoop
from tokenyard_billing.payments.methods import PaymentMethods
from tokenyard_billing.payments.operator_store import PaymentOperatorStore
from tokenyard_billing.payments.ports import PaymentProvider
from tokenyard_billing.payments.posting import PaymentPosting
from tokenyard_billing.payments.stripe_provider import StripeProvider
from tokenyard_billing.payments.tables import Payment
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.top_ups.buying import TopUps
from tokenyard_billing.top_ups.loops import AutomaticTopUpLoop

APRIL_MS = MARCH_MS + 31 * DAY_MS
INVOICE = "inv_acme_2026-03"
OPERATOR, TENANT_KEY = ApiKeyId("key_operator"), ApiKeyId("key_1")
DOLLARS_7 = 700 * CENT
DAYS = (0, 3, 7, 14)
TIMEOUT_S = 0.4


class PayingBooks(InvoiceBooks):
    def __init__(self, database: Database, redis: Redis, stripe: StripeServer, provider: PaymentProvider) -> None:
        super().__init__(database, redis, CENTS, provider=provider, dunning=DunningSchedule(DAYS))
        self.stripe = stripe
        self.provider = provider
        self.methods = PaymentMethods(database, provider, record, self.clock)
        self.top_ups = TopUps(database, self.methods, self.clock)
        self.settlements = self.settling()
        self.events = PaymentOperatorStore(database, self.clock)

    def dollars_of_output(self, dollars: int) -> TokenUsage:
        """Return usage of so many dollars that the cheap card halves."""
        return usage(0, dollars * NANO_PER_DOLLAR // RATE.output)

    async def owe(self, amount: int = DOLLARS_7, organization: OrganizationId = ACME) -> None:
        """Let March's invoice be issued: 7 dollars are due."""
        if amount:
            await self.use(amount, organization)
        self.clock.advance((APRIL_MS - MARCH_MS) / 1000)
        await self.close()

    async def set_up(self, card: str = GOOD, organization: OrganizationId = ACME) -> str:
        """Let a tenant set a method up, and the worker see it."""
        page = await self.methods.set_up(organization)
        method = self.stripe.account.complete_setup(page.id, card)
        await self.tell("checkout.session.completed")
        await self.pay()
        return method

    async def pay(self, loop: PaymentLoop | None = None) -> None:
        """Let a worker take a step once what was put off is due, but not so late that it polls."""
        self.clock.advance(RETRY_MS * 2 / 1000)
        await self.worker.leases.hold({})
        loop = loop or self.worker.payments
        assert loop is not None
        await loop.step()

    async def top_up(self) -> None:
        """Let a worker see who has little left, and ask Stripe for more."""
        await self.worker.leases.hold({})
        assert self.worker.top_ups is not None
        await self.worker.top_ups.step()
        await self.pay()

    def top_up_loop(self) -> AutomaticTopUpLoop:
        """Another loop over the same leases."""
        return AutomaticTopUpLoop(
            database=self.database,
            leases=self.worker.leases,
            metrics=LedgerMetrics(CollectorRegistry()),
            clock=self.clock,
            provider=self.provider.name,
            blocking=OrganizationBlocks(),
        )

    async def poll(self) -> None:
        self.clock.advance(POLL_MS / 1000)
        await self.pay()

    async def tell(self, kind: str) -> None:
        """Deliver the last event of a kind."""
        told = [one for one in self.stripe.account.events if one["type"] == kind][-1]
        now_ms = self.clock.now_ms()
        await self.events.take(self.provider.event(*self.stripe.signed(told, now_ms), now_ms))

    async def payments(self) -> list[Payment]:
        return sorted(await rows(self.database, Payment), key=lambda one: (one.created_at_ms, one.id))

    async def payment(self) -> Payment:
        [found] = await self.payments()
        return found

    async def cash(self, organization: OrganizationId = ACME) -> int:
        return -await balance(self.database, organization, "cash")

    @property
    def taken(self) -> int:
        """What really moved at Stripe, in nano-dollars."""
        return sum(self.stripe.account.taken.values()) * CENT

    def loop(self, provider: PaymentProvider | None = None) -> PaymentLoop:
        """Another loop over the same leases."""
        return PaymentLoop(
            database=self.database,
            leases=self.worker.leases,
            outbox=self.outbox,
            metrics=LedgerMetrics(CollectorRegistry()),
            clock=self.clock,
            provider=provider or self.provider,
            posting=PaymentPosting(record, write_event, OrganizationBlocks()),
            audit=record,
        )


@asynccontextmanager
async def paying_books(database: Database, redis: Redis) -> AsyncIterator[PayingBooks]:
    async with (
        stripe_server() as server,
        StripeProvider.opened(
            API_KEY,
            webhook_secret=WEBHOOK_SECRET,
            return_url="https://example.com/billing",
            api_url=server.url,
            timeout_s=TIMEOUT_S,
        ) as provider,
    ):
        yield PayingBooks(database, redis, server, provider)
