"""A period closes once all of it was told, read and decided; its invoice gets a number, and is never drawn again."""

import asyncio

import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy import text, update

from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import (
    ACME,
    GLOBEX,
    MARCH_MS,
    EagerLeases,
    balance,
    claims,
    live_budget,
    rows,
    send,
    settled,
    usage,
    worker,
)
from support.money.live_budgets import put_budget
from tokenyard.core.budgets import wallet
from tokenyard.core.ids import OrganizationId, new_organization_id
from tokenyard.core.redis_keys import bucket_of
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.metering.events import Outcome
from tokenyard.storage.database import Database
from tokenyard.tenancy.tables import AuditRow
from tokenyard_billing.apart import RETRY_MS
from tokenyard_billing.bucket_leases import LEASE_MS
from tokenyard_billing.invoice_tables import BillingPeriod, Invoice, InvoiceLine, InvoiceNumbers
from tokenyard_billing.invoicing.drafts import InvoiceIsFinal, keep
from tokenyard_billing.periods import DAY_MS, period_end_ms
from tokenyard_billing.tables import Alarm, BucketLease, Charge, OpenRequest

MONTH_MS = 31 * DAY_MS
APRIL_MS = MARCH_MS + MONTH_MS
MAY_MS = APRIL_MS + MONTH_MS
MARCH_END_MS = period_end_ms("2026-03", "UTC")
SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # other tests ask PostgreSQL all the same


@pytest.fixture
def books(database: Database, redis: Redis) -> InvoiceBooks:
    return InvoiceBooks(database, redis)


async def closed(books: InvoiceBooks) -> dict[tuple[str, str], bool]:
    found = await rows(books.database, BillingPeriod)
    return {(one.organization, one.period): one.closed_at_ms is not None for one in found}


def at(books: InvoiceBooks, at_ms: int) -> None:
    books.clock.advance(at_ms / 1000 - books.clock())


async def test_a_period_closes_a_day_after_its_end_and_its_invoice_is_issued(books: InvoiceBooks) -> None:
    await books.grant(300)
    await books.use(1_000)
    at(books, MARCH_END_MS + DAY_MS - 1)
    await books.close()
    assert await closed(books) == {(ACME, "2026-03"): False}
    books.clock.advance(0.002)
    await books.close()
    assert await closed(books) == {(ACME, "2026-03"): True}
    found = await books.invoice("2026-03")
    assert (found.state, found.number, found.issuer, found.sequence) == ("open", "INV-000001", "tokenyard", 1)
    assert (found.total, found.credit_applied, found.amount_due) == (1_000, 300, 700)
    assert found.due_at_ms == (found.issued_at_ms or 0) + 30 * DAY_MS == books.clock.now_ms() + 30 * DAY_MS
    accounts = {name: await balance(books.database, ACME, name) for name in ("wallet", "receivable", "revenue")}
    assert accounts == {"wallet": 0, "receivable": -700, "revenue": 1_000}
    [audited] = await rows(books.database, AuditRow)
    assert (audited.action, audited.actor, audited.resource) == ("invoice.issued", "worker", found.id)


@SQLITE
async def test_the_live_wallet_follows(books: InvoiceBooks) -> None:
    await put_budget(books.redis, bucket_of(ACME), wallet(ACME), BudgetFigures(0, 0))
    await books.use(1_000)
    await books.grant(100)
    assert (await live_budget(books.redis, ACME))["ledger"] == -900
    at(books, APRIL_MS)
    await books.close()
    assert (await live_budget(books.redis, ACME))["ledger"] == 0


@SQLITE
async def test_what_is_paid_by_credit_is_paid_at_once(books: InvoiceBooks) -> None:
    await books.grant(5_000)
    await books.use(1_000)
    at(books, APRIL_MS)
    await books.close()
    found = await books.invoice("2026-03")
    assert (found.state, found.number, found.amount_due) == ("paid", "INV-000001", 0)
    assert await balance(books.database, ACME) == 4_000
    assert await balance(books.database, ACME, "receivable") == 0


async def test_nothing_closes_before_the_watermark_has_passed(books: InvoiceBooks) -> None:
    await books.use(1_000)
    at(books, APRIL_MS)
    late = update(BucketLease).where(BucketLease.bucket == bucket_of(ACME))
    async with books.database.transaction() as session:
        await session.execute(late.values(watermark_ms=MARCH_END_MS + DAY_MS))
    await books.worker.closer.step()
    assert await closed(books) == {(ACME, "2026-03"): False}
    async with books.database.transaction() as session:
        await session.execute(late.values(watermark_ms=MARCH_END_MS + DAY_MS + 1))
    await books.worker.closer.step()
    assert await closed(books) == {(ACME, "2026-03"): True}


async def test_nothing_closes_before_each_of_its_requests_is_decided(books: InvoiceBooks) -> None:
    await books.use(1_000)
    await send(books.redis, settled(claims("req_left"), usage(7, 0), Outcome.CLIENT_LEFT))
    await books.worker.consumer.step()
    [waiting] = await rows(books.database, OpenRequest)
    assert waiting.admitted_at_ms == MARCH_MS
    at(books, APRIL_MS)
    await books.close()
    assert await closed(books) == {(ACME, "2026-03"): False}
    async with books.database.transaction() as session:
        await session.execute(update(OpenRequest).values(admitted_at_ms=MARCH_END_MS))  # one of April
    await books.close()
    assert await closed(books) == {(ACME, "2026-03"): True}


async def test_late_usage_is_billed_in_the_first_open_period_at_its_own_price(books: InvoiceBooks) -> None:
    await books.grant(500)
    await books.use(1_000)
    at(books, APRIL_MS)
    await books.close()
    issued = await books.invoice("2026-03")
    await books.use(400, at_ms=MARCH_MS)
    await books.use(200, at_ms=APRIL_MS)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_000, 500, 500), ("2026-04", 600, 0, 600)]
    lines = [one for one in await rows(books.database, InvoiceLine) if one.invoice == "inv_acme_2026-04"]
    assert [(one.usage_period, one.amount) for one in lines] == [("2026-04", 200), ("2026-03", 400)]
    dated = {(one.period, one.billed_in, one.amount) for one in await rows(books.database, Charge)}
    assert dated == {("2026-03", "2026-03", 1_000), ("2026-03", "2026-04", 400), ("2026-04", "2026-04", 200)}
    assert (await books.invoice("2026-03")).drafted_at_ms == issued.drafted_at_ms
    assert await books.marks() == {}
    at(books, MAY_MS)
    await books.close()
    assert (await books.invoice("2026-04")).number == "INV-000002"
    assert await balance(books.database, ACME) == 0
    assert await balance(books.database, ACME, "receivable") == -1_100


@SQLITE
async def test_late_usage_of_a_month_without_any_other(books: InvoiceBooks) -> None:
    """Nothing was used in March, and April is closed."""
    await books.use(1_000, at_ms=APRIL_MS)
    at(books, MAY_MS)
    await books.close()
    await books.use(300, at_ms=MARCH_MS)
    await books.draft()
    assert await books.bills() == [("2026-04", 1_000, 0, 1_000), ("2026-05", 300, 0, 300)]
    await books.close()
    states = await closed(books)
    assert states == {(ACME, "2026-03"): True, (ACME, "2026-04"): True, (ACME, "2026-05"): False}


@SQLITE
async def test_periods_close_in_order_one_in_a_step(books: InvoiceBooks) -> None:
    await books.use(100, at_ms=APRIL_MS)
    await books.use(200)
    at(books, MAY_MS)
    await books.close()
    assert await closed(books) == {(ACME, "2026-03"): True, (ACME, "2026-04"): False}
    await books.close()
    assert [(await books.invoice(period)).number for period in ("2026-03", "2026-04")] == ["INV-000001", "INV-000002"]


@SQLITE
async def test_credit_that_a_closed_invoice_used_is_used(books: InvoiceBooks) -> None:
    await books.grant(1_500)
    await books.use(1_000)
    at(books, APRIL_MS)
    await books.close()
    await books.use(800, at_ms=APRIL_MS)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_000, 1_000, 0), ("2026-04", 800, 500, 300)]
    await books.grant(100)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_000, 1_000, 0), ("2026-04", 800, 600, 200)]


@SQLITE
async def test_an_issued_invoice_refuses_to_be_written(books: InvoiceBooks) -> None:
    await books.use(1_000)
    drawn = await books.worker.drafter.draw(ACME)
    await books.draft()
    at(books, APRIL_MS)
    await books.close()
    await books.worker.drafter.keep(drawn)  # an old draw is passed over
    current = await books.worker.drafter.draw(ACME)
    forged = msgspec.structs.replace(drawn, stored=current.stored)
    with pytest.raises(InvoiceIsFinal):
        async with books.database.transaction() as session:
            await keep(session, forged)
    assert await books.bills() == [("2026-03", 1_000, 0, 1_000)]


@SQLITE
async def test_a_mark_of_a_closed_period_changes_the_first_open_one_only(books: InvoiceBooks) -> None:
    await books.use(1_000)
    at(books, APRIL_MS)
    await books.close()
    await books.use(100, at_ms=APRIL_MS)
    await books.draft()
    mark = "INSERT INTO billing_stale_invoices VALUES ('org_acme', '2026-03', :bucket, 1, 0)"
    async with books.database.transaction() as session:
        await session.execute(text(mark), {"bucket": bucket_of(ACME)})
        await session.execute(text("UPDATE billing_invoices SET total = 7 WHERE period = '2026-04'"))
    await books.draft()
    assert [bill[:2] for bill in await books.bills()] == [("2026-03", 1_000), ("2026-04", 100)]
    assert await books.marks() == {}


async def test_what_comes_while_a_period_is_drawn_closes_it_later(books: InvoiceBooks) -> None:
    await books.use(1_000)
    at(books, APRIL_MS)
    draw = books.worker.drafter.draw

    async def slowly(organization: OrganizationId) -> object:
        drawn = await draw(organization)
        await books.use(500)
        return drawn

    books.worker.drafter.draw = slowly  # type: ignore[method-assign, assignment]
    await books.close()
    assert await closed(books) == {(ACME, "2026-03"): False}
    books.worker.drafter.draw = draw  # type: ignore[method-assign]
    await books.close()
    assert (await books.invoice("2026-03")).total == 1_500


async def test_an_organization_that_fails_stops_no_other_and_leaves_no_gap(books: InvoiceBooks) -> None:
    await books.use(1_000)
    await books.draft()
    await books.use(100)
    async with books.database.transaction() as session:
        await session.execute(text("UPDATE billing_charges SET amount = amount + 1"))
    await books.use(700, GLOBEX)
    at(books, APRIL_MS)
    await books.close()
    assert await closed(books) == {(ACME, "2026-03"): False, (GLOBEX, "2026-03"): True}
    assert (await books.invoice("2026-03", GLOBEX)).number == "INV-000001"
    assert [one.kind for one in await rows(books.database, Alarm)] == ["period_not_closed"]
    async with books.database.transaction() as session:
        await session.execute(text("UPDATE billing_charges SET amount = amount - 1 WHERE organization = 'org_acme'"))
    await books.close()
    assert await closed(books) == {(ACME, "2026-03"): False, (GLOBEX, "2026-03"): True}, "not yet: it is put off"
    books.clock.advance(RETRY_MS / 1000)
    await books.close()
    assert (await books.invoice("2026-03")).number == "INV-000002"


@SQLITE
async def test_a_rollback_takes_the_number_back(books: InvoiceBooks, monkeypatch: pytest.MonkeyPatch) -> None:
    await books.use(1_000)
    at(books, APRIL_MS)
    with monkeypatch.context() as patched:
        patched.setattr(books.worker.closer, "_audit", None)
        await books.close()
    assert await rows(books.database, InvoiceNumbers) == []
    books.clock.advance(RETRY_MS / 1000)
    await books.close()
    assert (await books.invoice("2026-03")).number == "INV-000001"


async def test_workers_that_close_at_once_leave_no_gap_and_give_no_number_twice(books: InvoiceBooks) -> None:
    organizations = [new_organization_id() for _ in range(12)]
    for organization in organizations:
        await books.use(1_000, organization)
    at(books, APRIL_MS)
    await books.worker.leases.release()
    workers = [worker(books.database, books.redis, name=name, clock=books.clock) for name in ("one", "two")]
    for one in workers:
        await one.leases.hold({})
    books.clock.advance(LEASE_MS / 1000 + 1)
    leases = [EagerLeases(books.database, books.clock, name) for name in ("one", "two")]
    for _ in range(2):
        for lease in leases:
            await lease.hold_now()
    for one, lease in zip(workers, leases, strict=True):
        one.closer._leases = lease
    async with books.database.transaction() as session:
        await session.execute(update(BucketLease).values(watermark_ms=books.clock.now_ms()))
    await asyncio.gather(*(one.closer.step() for one in workers))
    numbers = sorted(one.sequence for one in await rows(books.database, Invoice))
    assert numbers == list(range(1, 13))
    assert all(len(lease.held) == 32 for lease in leases)
