"""Drafts follow charges and grants, credit is used up in order, and workers share the drawing."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from sqlalchemy import text, update

from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import (
    ACME,
    GLOBEX,
    MARCH_MS,
    PRICES,
    EagerLeases,
    balance,
    claims,
    intake,
    rows,
    send,
    settled,
    trained,
    usage,
)
from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId, new_organization_id
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import Database
from tokenyard_billing.apart import RETRY_MS
from tokenyard_billing.bucket_leases import LEASE_MS, BucketLeases, LeaseLost
from tokenyard_billing.charging.intake import Received
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.invoice_tables import Invoice, InvoiceLine
from tokenyard_billing.invoicing.drafts import Drafts
from tokenyard_billing.invoicing.loops import InvoiceDrafter
from tokenyard_billing.tables import Alarm, Charge

MONTH_S = 31 * 86_400
APRIL_MS = MARCH_MS + MONTH_S * 1000


@pytest.fixture
def books(database: Database, redis: Redis) -> InvoiceBooks:
    return InvoiceBooks(database, redis)


async def test_credit_pays_the_earlier_month_first(books: InvoiceBooks) -> None:
    await books.grant(5_000)
    await books.use(4_000)
    await books.use(2_000, at_ms=APRIL_MS)
    await books.draft()
    assert await books.bills() == [("2026-03", 4_000, 4_000, 0), ("2026-04", 2_000, 1_000, 1_000)]


async def test_what_invoices_applied_uses_up_credit_not_what_was_charged(books: InvoiceBooks) -> None:
    await books.grant(1_000)
    await books.use(1_500)
    books.clock.advance(MONTH_S)
    await books.grant(1_000)
    await books.use(800, at_ms=APRIL_MS)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_500, 1_000, 500), ("2026-04", 800, 800, 0)]
    left = 2_000 - 1_800
    assert 500 + 0 - left == -await balance(books.database, ACME) == 300


async def test_lines_are_tokens_times_rate_and_follow_each_charge(books: InvoiceBooks) -> None:
    await books.draft()
    assert await books.bills() == []
    for total in (1_000, 2_000):
        await books.use(1_000)
        await books.draft()
        assert await books.bills() == [("2026-03", total, 0, total)]
        [line] = await rows(books.database, InvoiceLine)
        assert (line.invoice, line.quantity * line.rate, line.amount) == ("inv_acme_2026-03", total, total)


async def test_what_costs_nothing_is_billed_as_nothing(books: InvoiceBooks) -> None:
    await send(books.redis, trained("ftjob-1", 0))
    await books.worker.consumer.step()
    await books.draft()
    assert await books.bills() == [("2026-03", 0, 0, 0)]


async def test_a_grant_redraws_the_draft(books: InvoiceBooks) -> None:
    await books.use(1_500)
    await books.draft()
    await books.grant(1_000)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_500, 1_000, 500)]


async def test_a_grant_in_a_month_without_charges_makes_no_invoice(books: InvoiceBooks) -> None:
    await books.use(500, at_ms=APRIL_MS)
    await books.draft()
    await books.grant(1_000)  # in March
    await books.draft()
    assert await books.bills() == [("2026-04", 500, 500, 0)]
    assert await books.marks() == {}


async def test_a_later_grant_never_pays_an_earlier_month(books: InvoiceBooks) -> None:
    await books.use(1_500)
    await books.draft()
    books.clock.advance(MONTH_S)
    await books.grant(1_000)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_500, 0, 1_500)]


async def test_a_late_charge_takes_credit_from_later_months(books: InvoiceBooks) -> None:
    await books.grant(2_000)
    await books.use(1_000)
    await books.use(1_000, at_ms=APRIL_MS)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_000, 1_000, 0), ("2026-04", 1_000, 1_000, 0)]
    await books.use(600)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_600, 1_600, 0), ("2026-04", 1_000, 400, 600)]


async def test_nothing_is_drawn_where_nothing_is_marked(books: InvoiceBooks) -> None:
    await books.use(1_000)
    await books.draft()
    [before] = await rows(books.database, Invoice)
    books.clock.advance(100)
    await books.use(1_000, organization=GLOBEX)
    await books.draft()
    drafted = {one.organization: one.drafted_at_ms for one in await rows(books.database, Invoice)}
    assert drafted == {ACME: before.drafted_at_ms, GLOBEX: before.drafted_at_ms + 100_000}
    assert await books.marks() == {}


async def test_a_mark_falls_with_the_transaction_that_wrote_it(books: InvoiceBooks) -> None:
    async with books.database.reading() as session:  # its end keeps nothing of what is written in it
        event = Received(settled(claims("req_a"), usage(10, 0)), MARCH_MS)
        await intake(books.database).take(session, [event], MARCH_MS)
    assert await rows(books.database, Charge) == []
    assert await books.marks() == {}


async def test_a_grant_that_is_repeated_marks_once(books: InvoiceBooks) -> None:
    for _ in range(3):
        await books.grant(100, key="same")
    assert await books.marks() == {(ACME, "2026-03"): 1}


async def test_what_comes_during_a_draw_keeps_its_mark(books: InvoiceBooks) -> None:
    await books.use(1_000)
    drawn = await books.worker.drafter.draw(ACME)
    await books.use(500)
    await books.grant(100)
    await books.worker.drafter.keep(drawn)
    assert await books.bills() == [("2026-03", 1_000, 0, 1_000)]
    assert await books.marks() == {(ACME, "2026-03"): 3}
    await books.draft()
    assert await books.bills() == [("2026-03", 1_500, 100, 1_400)]
    assert await books.marks() == {}


async def test_an_old_draw_never_replaces_a_newer_one(books: InvoiceBooks) -> None:
    """A bucket may go to another worker and come back while a draw takes its time."""
    await books.use(1_000)
    old = await books.worker.drafter.draw(ACME)
    await books.draft()
    books.clock.advance(1)
    await books.use(500)
    await books.draft()
    await books.use(200)  # its mark counts 1, as the first one did
    await books.worker.drafter.keep(old)
    assert await books.bills() == [("2026-03", 1_500, 0, 1_500)]
    await books.draft()
    assert await books.bills() == [("2026-03", 1_700, 0, 1_700)]


@pytest.mark.parametrize(
    ("tampering", "reason"),
    [
        ("amount = amount + 1", "InvoiceMismatch: org_acme 2026-03: lines sum to 1000, charges to 1001"),
        ("price = 'gone/model'", "UnknownPrice: no rate card has the price 'gone/model'"),
    ],
)
async def test_an_organization_that_fails_stops_no_other_and_is_tried_again(
    books: InvoiceBooks, tampering: str, reason: str
) -> None:
    await books.use(1_000)
    charged = await rows(books.database, Charge)
    async with books.database.transaction() as session:
        await session.execute(text(f"UPDATE billing_charges SET {tampering}"))
    await books.use(700, organization=GLOBEX)
    await books.draft()
    assert await books.bills() == []
    assert await books.bills(GLOBEX) == [("2026-03", 700, 0, 700)]
    assert await books.marks() == {(ACME, "2026-03"): 1}
    [alarm] = await rows(books.database, Alarm)
    assert (alarm.kind, alarm.subject, alarm.organization) == ("invoice_failed", "inv_acme_2026-03", ACME)
    assert alarm.message.startswith(reason)

    async with books.database.transaction() as session:
        await session.execute(update(Charge).values(amount=charged[0].amount, price=charged[0].price))
    await books.draft()
    assert await books.bills() == [], "not yet: it is put off"
    books.clock.advance(RETRY_MS / 1000)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_000, 0, 1_000)]
    assert await books.marks() == {}


class CountingDrafter(InvoiceDrafter):
    """Counts what it draws."""

    def __init__(self, database: Database, leases: BucketLeases, clock: Clock) -> None:
        metrics = LedgerMetrics(CollectorRegistry())
        super().__init__(database=database, leases=leases, prices=PRICES, metrics=metrics, clock=clock)
        self.drawn: Counter[str] = Counter()

    async def draw(self, organization: OrganizationId) -> Drafts:
        self.drawn[organization] += 1
        return await super().draw(organization)


async def test_workers_share_the_drawing(books: InvoiceBooks) -> None:
    organizations = [new_organization_id() for _ in range(12)]
    for organization in organizations:
        await books.use(1_000, organization)
    await books.worker.leases.release()
    leases = [EagerLeases(books.database, books.clock, name) for name in ("one", "two")]
    for _ in range(2):  # the first takes all, and then gives half to the second
        for one in leases:
            await one.hold_now()
    first, second = (CountingDrafter(books.database, one, books.clock) for one in leases)
    await asyncio.gather(first.step(), second.step(), *(books.grant(300, one) for one in organizations))
    assert first.drawn.keys() | second.drawn.keys() == set(organizations)
    assert not first.drawn.keys() & second.drawn.keys()
    await asyncio.gather(first.step(), second.step())
    for organization in organizations:
        assert await books.bills(organization) == [("2026-03", 1_000, 300, 700)]
    assert await books.marks() == {}


async def test_who_lost_the_bucket_writes_no_draft(books: InvoiceBooks) -> None:
    await books.use(1_000)
    await books.use(1_000, GLOBEX)
    drawn = await books.worker.drafter.draw(ACME)
    books.clock.advance(LEASE_MS / 1000 + 1)
    successor = EagerLeases(books.database, books.clock, "successor")
    assert bucket_of(ACME) in await successor.hold_now()
    with pytest.raises(LeaseLost):
        await books.worker.drafter.keep(drawn)
    await books.draft()
    assert await rows(books.database, Alarm) == [], "that is no failure of theirs"
    assert await books.bills() == []
    await CountingDrafter(books.database, successor, books.clock).step()
    assert await books.bills() == [("2026-03", 1_000, 0, 1_000)]


async def test_charges_grants_and_draws_at_the_same_time(books: InvoiceBooks) -> None:
    async def use() -> None:
        await books.use(1_000)
        await books.use(200, at_ms=APRIL_MS)

    async def again(work: Callable[[], Awaitable[None]]) -> None:
        for _ in range(15):
            await work()

    await asyncio.gather(again(use), again(lambda: books.grant(700)), again(books.draft))
    await books.draft()
    assert await books.bills() == [("2026-03", 15_000, 10_500, 4_500), ("2026-04", 3_000, 0, 3_000)]
    assert await books.marks() == {}
