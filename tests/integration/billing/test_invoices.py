"""Drafts follow the charges, period by period, and credit is used up in order."""

from redis.asyncio import Redis

from support.billing_stand import (
    ACME,
    GLOBEX,
    MARCH_MS,
    PRICES,
    budget_outbox,
    claims,
    rows,
    send,
    settled,
    trained,
    usage,
    worker,
)
from support.fakes.clock import FrozenClock
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard_billing.invoicing.loops import InvoiceDrafter
from tokenyard_billing.invoicing.store import InvoiceStore
from tokenyard_billing.tables import Invoice, InvoiceLine
from tokenyard_billing.wallets.store import Wallet

APRIL_MS = MARCH_MS + 31 * 86_400_000
CLOCK = FrozenClock(MARCH_MS / 1000)


async def test_credit_pays_the_earlier_month_first(database: Database, redis: Redis) -> None:
    invoices = InvoiceStore(database, PRICES, CLOCK)
    wallet = Wallet(database, budget_outbox(database, redis), CLOCK)
    await wallet.grant(ACME, NanoDollars(5_000), reason="paid", actor="op", idempotency_key="a")
    await send(
        redis,
        settled(claims("req_a"), usage(40, 0)),
        settled(claims("req_b", admitted_at_ms=APRIL_MS), usage(0, 5)),
        trained("ftjob-1", 0),
    )
    await worker(database, redis).consumer.step()
    april, march = await invoices.drawn(ACME)
    assert (april.period, march.period) == ("2026-04", "2026-03")
    assert (march.total, march.credit_applied, march.amount_due) == (4_000, 4_000, 0)
    assert (april.total, april.credit_applied, april.amount_due) == (2_000, 1_000, 1_000)
    assert await invoices.drawn(ACME, "2026-03") == [march]
    assert await invoices.drawn(ACME, "2026-05") == await invoices.drawn(GLOBEX) == []


async def test_drafts_are_kept_up_to_date(database: Database, redis: Redis) -> None:
    invoices = InvoiceStore(database, PRICES, CLOCK)
    drafter = InvoiceDrafter(database, invoices)
    stand = worker(database, redis)
    await drafter.step()
    assert await rows(database, Invoice) == []
    for number, total in ((1, 1_400), (2, 2_800)):
        await send(redis, settled(claims(f"req_{number}"), usage(10, 1)))
        await stand.consumer.step()
        await drafter.step()
        [invoice] = await rows(database, Invoice)
        assert (invoice.id, invoice.total) == ("inv_acme_2026-03", total)
        lines = await rows(database, InvoiceLine)
        assert sum(line.quantity * line.rate for line in lines) == total == sum(line.amount for line in lines)
        assert len(lines) == 2
    await InvoiceDrafter(database, invoices).step()  # another worker, from the start
    assert len(await rows(database, Invoice)) == 1
