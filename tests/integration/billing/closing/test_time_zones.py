"""An organization's periods end in its own time zone, from the next period on."""

import pytest
from redis.asyncio import Redis

from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import ACME, GLOBEX, MARCH_MS, rows
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import ApiKeyId
from tokenyard.storage.database import Database
from tokenyard.tenancy.store import record
from tokenyard.tenancy.tables import AuditRow
from tokenyard_billing.invoice_tables import BillingPeriod
from tokenyard_billing.invoicing.time_zones import BillingTimeZone, BillingTimeZones
from tokenyard_billing.periods import DAY_MS, HOUR_MS, period_start_ms
from tokenyard_billing.tables import Charge

OPERATOR = ApiKeyId("key_operator")
SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # other tests ask PostgreSQL all the same
TOKYO = "Asia/Tokyo"
APRIL_MS, MAY_MS = (period_start_ms(period, "UTC") for period in ("2026-04", "2026-05"))
MAY_IN_TOKYO_MS = MAY_MS - 9 * HOUR_MS


@pytest.fixture
def books(database: Database, redis: Redis) -> InvoiceBooks:
    return InvoiceBooks(database, redis)


@pytest.fixture
def zones(books: InvoiceBooks) -> BillingTimeZones:
    return BillingTimeZones(books.database, record, books.clock)


async def test_it_is_utc_until_it_is_set_and_changes_with_the_next_period(
    books: InvoiceBooks, zones: BillingTimeZones
) -> None:
    assert await zones.get(ACME) == BillingTimeZone(ACME, "UTC", "2026-03", "UTC", "2026-04")
    changed = BillingTimeZone(ACME, "UTC", "2026-03", TOKYO, "2026-04")
    assert await zones.change(ACME, TOKYO, actor=OPERATOR) == await zones.get(ACME) == changed
    [audited] = await rows(books.database, AuditRow)
    assert (audited.action, audited.actor) == ("organization.time_zone_changed", OPERATOR)
    assert audited.details == {"time_zone": TOKYO, "since_period": "2026-04"}
    assert audited.before == {"time_zone": "UTC"}
    books.clock.advance((APRIL_MS - MARCH_MS) / 1000)
    assert await zones.get(ACME) == BillingTimeZone(ACME, TOKYO, "2026-04", TOKYO, "2026-05")
    assert (await zones.get(GLOBEX)).next_time_zone == "UTC"


@SQLITE
async def test_a_change_that_is_taken_back_before_it_began_never_was(zones: BillingTimeZones) -> None:
    await zones.change(ACME, TOKYO, actor=OPERATOR)
    assert (await zones.change(ACME, "UTC", actor=OPERATOR)).next_time_zone == "UTC"


@SQLITE
async def test_an_unknown_one_is_refused(books: InvoiceBooks, zones: BillingTimeZones) -> None:
    for name in ("Mars/Olympus", "../UTC", "Europe", "localtime", "Factory", ""):
        with pytest.raises(InvalidRequest):
            await zones.change(ACME, name, actor=OPERATOR)
    assert await rows(books.database, AuditRow) == []


async def test_charges_and_credit_count_in_the_periods_of_the_organization(
    books: InvoiceBooks, zones: BillingTimeZones
) -> None:
    """April begins in UTC, where March ended, and is nine hours short."""
    await zones.change(ACME, TOKYO, actor=OPERATOR)
    books.clock.advance((MAY_IN_TOKYO_MS - MARCH_MS) / 1000)
    await books.grant(50)
    moments = {APRIL_MS - 1: 100, APRIL_MS: 200, MAY_IN_TOKYO_MS - 1: 400, MAY_IN_TOKYO_MS: 800}
    for at_ms, amount in moments.items():
        await books.use(amount, at_ms=at_ms)
    await books.use(1_600, GLOBEX, at_ms=MAY_IN_TOKYO_MS)
    await books.draft()
    assert await books.bills() == [("2026-03", 100, 0, 100), ("2026-04", 600, 0, 600), ("2026-05", 800, 50, 750)]
    assert await books.bills(GLOBEX) == [("2026-04", 1_600, 0, 1_600)]
    found = await books.invoice("2026-04")
    assert (found.time_zone, found.period_start_ms, found.period_end_ms) == (TOKYO, APRIL_MS, MAY_IN_TOKYO_MS)
    dated = {(one.period, one.time_zone) for one in await rows(books.database, Charge) if one.organization == ACME}
    assert dated == {("2026-03", "UTC"), ("2026-04", TOKYO), ("2026-05", TOKYO)}


async def test_a_period_that_has_begun_by_a_clock_ahead_ends_and_is_drawn_by_what_was_said_last(
    books: InvoiceBooks, zones: BillingTimeZones
) -> None:
    await books.use(100, at_ms=APRIL_MS)
    await books.draft()
    await zones.change(ACME, TOKYO, actor=OPERATOR)
    await books.draft()
    [period] = await rows(books.database, BillingPeriod)
    drafted = await books.invoice("2026-04")
    assert period.end_ms == drafted.period_end_ms == MAY_IN_TOKYO_MS
    assert drafted.time_zone == TOKYO


async def test_a_period_closes_a_day_after_its_own_end(books: InvoiceBooks, zones: BillingTimeZones) -> None:
    await zones.change(ACME, TOKYO, actor=OPERATOR)
    books.clock.advance((APRIL_MS - MARCH_MS) / 1000)
    for organization in (ACME, GLOBEX):
        await books.use(100, organization, at_ms=APRIL_MS)
    books.clock.advance((MAY_IN_TOKYO_MS + DAY_MS + 1 - APRIL_MS) / 1000)
    await books.close()
    closed = {one.organization: one.closed_at_ms is not None for one in await rows(books.database, BillingPeriod)}
    assert closed == {ACME: True, GLOBEX: False}
