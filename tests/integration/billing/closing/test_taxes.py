"""Taxes of invoices, worked out by hand; and what was issued stands, whatever changes afterwards."""

import pytest
from redis.asyncio import Redis

from support.billing.stand import ACME, GLOBEX, MARCH_MS, claims, journal_sum, rows, send, settled, usage
from support.billing.tax_books import APRIL_MS, DOLLAR, MAY_MS, OPERATOR, TaxBooks
from tokenyard.core.errors import Conflict, InvalidRequest
from tokenyard.core.money import CENT
from tokenyard.storage.database import Database
from tokenyard.tenancy.tables import AuditRow
from tokenyard_billing.periods import BEGINNING, DAY_MS, period_start_ms
from tokenyard_billing.taxes.terms import Exemption, TaxProfile

SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # other tests ask PostgreSQL all the same
ACCOUNTS = ("wallet", "receivable", "revenue", "tax", "rounding", "cash", "adjustments", "written_off")
MARCH = "inv_acme_2026-03"


@pytest.fixture
def books(database: Database, redis: Redis) -> TaxBooks:
    return TaxBooks(database, redis)


async def closed(books: TaxBooks, at_ms: int = APRIL_MS) -> None:
    books.at(at_ms)
    await books.close()
    assert await books.broken() == set()


async def test_tax_on_top_and_whole_cents(books: TaxBooks) -> None:
    """19 % of $12.3456789 are $2.345678991: $14.691357891, so $14.69 can be paid."""
    await books.publish("DE", "19")
    await books.live_in("DE")
    await books.use(12_345_678_900)
    await books.draft()
    drafted = {
        "total": 12_345_678_900,
        "credit_applied": 0,
        "tax": 2_345_678_991,
        "tax_included": 0,
        "rounding": 0,
        "amount_due": 14_691_357_891,
    }
    assert await books.amounts("2026-03") == drafted
    assert await books.accounts("wallet", "tax") == {"wallet": -12_345_678_900, "tax": 0}
    assert await books.broken() == set()
    await closed(books)
    assert await books.amounts("2026-03") == drafted | {"rounding": -1_357_891, "amount_due": 1_469 * CENT}
    assert await books.accounts(*ACCOUNTS) == dict.fromkeys(ACCOUNTS, 0) | {
        "receivable": -1_469 * CENT,
        "revenue": 12_345_678_900,
        "tax": 2_345_678_991,
        "rounding": -1_357_891,
    }
    assert await journal_sum(books.database) == 0
    [line] = await books.lines(MARCH)
    assert (line.tax_name, line.tax_rate, line.tax_inclusive, line.tax) == ("VAT", 190_000, False, 2_345_678_991)
    issued = await books.invoice("2026-03")
    assert (issued.tax_jurisdiction, issued.tax_exemption, issued.tax_reason) == ("DE", "none", "")


async def test_tax_that_prices_hold_is_no_revenue(books: TaxBooks) -> None:
    """10 % in $1: $0.909090909 and $0.090909091."""
    await books.publish("AU", "10", inclusive=True)
    await books.live_in("AU")
    await books.use(DOLLAR)
    await closed(books)
    assert await books.amounts("2026-03") == {
        "total": DOLLAR,
        "credit_applied": 0,
        "tax": 90_909_091,
        "tax_included": 90_909_091,
        "rounding": 0,
        "amount_due": DOLLAR,
    }
    assert await books.accounts(*ACCOUNTS) == dict.fromkeys(ACCOUNTS, 0) | {
        "receivable": -DOLLAR,
        "revenue": 909_090_909,
        "tax": 90_909_091,
    }


async def test_credit_is_a_discount_before_tax_and_pays_for_lines_in_their_order(books: TaxBooks) -> None:
    """Of $1 input and $2 output, $1.50 of credit leaves $1.50 of the output: 19 % are $0.285, due is $1.785."""
    await books.publish("DE", "19")
    await books.live_in("DE")
    await books.grant(1_500_000_000)
    await send(books.redis, settled(claims("req_1"), usage(10_000_000, 5_000_000)))
    await books.draft()
    await closed(books)
    lines = [(one.kind, one.amount, one.credit_applied, one.tax) for one in await books.lines(MARCH)]
    assert lines == [("input", DOLLAR, DOLLAR, 0), ("output", 2 * DOLLAR, DOLLAR // 2, 285_000_000)]
    found = await books.amounts("2026-03")
    assert (found["tax"], found["rounding"], found["amount_due"]) == (285_000_000, 5_000_000, 179 * CENT)


@SQLITE
async def test_what_credit_pays_is_taxed_by_nobody(books: TaxBooks) -> None:
    await books.publish("DE", "19")
    await books.live_in("DE")
    await books.grant(5 * DOLLAR)
    await books.use(2 * DOLLAR)
    await closed(books)
    found = await books.invoice("2026-03")
    assert (found.state, found.tax, found.amount_due) == ("paid", 0, 0)
    assert await books.accounts("wallet", "tax", "receivable") == {"wallet": 3 * DOLLAR, "tax": 0, "receivable": 0}


@SQLITE
@pytest.mark.parametrize(("used", "due", "state"), [(4_999_900, 0, "paid"), (5_000_000, CENT, "open")])
async def test_less_than_half_a_cent_is_nothing_and_half_a_cent_is_one(
    books: TaxBooks, used: int, due: int, state: str
) -> None:
    await books.use(used)
    await closed(books)
    found = await books.invoice("2026-03")
    assert (found.state, found.amount_due, found.rounding) == (state, due, due - used)
    assert await books.accounts("wallet", "receivable", "rounding") == {
        "wallet": 0,
        "receivable": -due,
        "rounding": due - used,
    }


@SQLITE
@pytest.mark.parametrize("exemption", ["exempt", "reverse_charge"])
async def test_who_is_exempt_pays_no_tax_and_the_invoice_says_why(books: TaxBooks, exemption: Exemption) -> None:
    await books.publish("DE", "19")
    await books.live_in("DE", exemption, "DE123456789")
    await books.use(DOLLAR)
    await closed(books)
    found = await books.invoice("2026-03")
    assert (found.tax, found.amount_due) == (0, DOLLAR)
    assert (found.tax_jurisdiction, found.tax_exemption, found.tax_reason) == ("DE", exemption, "DE123456789")


async def test_late_usage_is_taxed_at_the_old_rate(books: TaxBooks) -> None:
    """19 % until March, 16 % from April on: of $4 of March and $2 of April they are $0.76 and $0.32."""
    await books.publish("DE", "19")
    await books.publish("DE", "16", from_ms=period_start_ms("2026-04", "UTC"))
    await books.live_in("DE")
    await books.use(10 * DOLLAR)
    await closed(books)
    assert (await books.invoice("2026-03")).tax == 1_900_000_000
    await books.use(4 * DOLLAR)
    await books.use(2 * DOLLAR, at_ms=APRIL_MS)
    await closed(books, MAY_MS)
    lines = [(one.usage_period, one.tax_rate, one.tax) for one in await books.lines("inv_acme_2026-04")]
    assert lines == [("2026-04", 160_000, 320_000_000), ("2026-03", 190_000, 760_000_000)]
    assert (await books.invoice("2026-04")).amount_due == 7_080_000_000


@SQLITE
async def test_the_rate_at_the_end_of_a_period_is_that_of_all_of_it(books: TaxBooks) -> None:
    await books.publish("DE", "19")
    await books.publish("DE", "16", from_ms=period_start_ms("2026-04", "UTC") - 1)
    await books.publish("DE", "7", from_ms=period_start_ms("2026-04", "UTC"))
    await books.live_in("DE")
    await books.use(DOLLAR)
    await books.draft()
    assert [one.tax_rate for one in await books.lines(MARCH)] == [160_000]


async def test_a_new_rate_and_a_new_profile_are_of_open_periods_only(books: TaxBooks) -> None:
    """Also late usage of March stays where the organization was in March."""
    await books.publish("DE", "19")
    await books.live_in("DE")
    await books.use(DOLLAR)
    await closed(books)
    before = await books.amounts("2026-03")
    await books.use(DOLLAR)
    await books.use(DOLLAR, at_ms=APRIL_MS)
    await books.use(DOLLAR, GLOBEX, at_ms=APRIL_MS)
    await books.draft()
    await books.publish("FR", "20")
    assert await books.marks() == {}, "nobody pays it yet"
    changed = await books.live_in("FR")
    assert changed.since_period == "2026-04"
    await books.draft()
    taxes = [(one.usage_period, one.tax) for one in await books.lines("inv_acme_2026-04")]
    assert taxes == [("2026-04", 200_000_000), ("2026-03", 190_000_000)]
    await books.publish("FR", "10", from_ms=APRIL_MS)
    assert [owner for owner, _ in await books.marks()] == [ACME]
    await books.draft()
    taxes = [(one.usage_period, one.tax) for one in await books.lines("inv_acme_2026-04")]
    assert taxes == [("2026-04", 100_000_000), ("2026-03", 190_000_000)]
    assert await books.amounts("2026-03") == before
    assert (await books.invoice("2026-03")).tax_jurisdiction == "DE"
    assert (await books.invoice("2026-04", GLOBEX)).tax == 0
    assert await books.broken() == set()


@SQLITE
async def test_a_rate_of_a_country_is_for_its_regions_too(books: TaxBooks) -> None:
    await books.live_in("US-CA")
    await books.live_in("DE", organization=GLOBEX)
    await books.use(DOLLAR)
    await books.draft()
    await books.publish("US", "5")
    assert [owner for owner, _ in await books.marks()] == [ACME]
    await books.draft()
    assert (await books.invoice("2026-03")).tax == 50_000_000
    await books.publish("US-CA", "7.25")
    await books.draft()
    assert (await books.invoice("2026-03")).tax == 72_500_000


async def test_a_rate_that_is_published_amid_a_draw_is_in_the_next_one(books: TaxBooks) -> None:
    await books.live_in("DE")
    await books.use(DOLLAR)
    drawn = await books.worker.drafter.draw(ACME)
    await books.publish("DE", "19")
    await books.worker.drafter.keep(drawn)
    assert (await books.invoice("2026-03")).tax == 0
    await books.draft()
    assert (await books.invoice("2026-03")).tax == 190_000_000
    assert await books.marks() == {}


@pytest.mark.parametrize(
    ("way", "ends"),
    [
        ("void", {"adjustments": -12_344_321_009}),  # $14.69 without the tax
        ("write_off", {"written_off": -1_469 * CENT, "tax": 2_345_678_991}),
        ("pay", {"cash": -1_469 * CENT, "tax": 2_345_678_991}),
    ],
)
async def test_a_void_invoice_gives_the_tax_back_and_no_other_does(
    books: TaxBooks, way: str, ends: dict[str, int]
) -> None:
    await books.publish("DE", "19")
    await books.live_in("DE")
    await books.use(12_345_678_900)
    await closed(books)
    if way == "pay":
        await books.settlements.pay(MARCH, reference="bank 17", idempotency_key="once", actor=OPERATOR)
    else:
        await getattr(books.settlements, way)(MARCH, reason="x", actor=OPERATOR)
    standing = {"revenue": 12_345_678_900, "rounding": -1_357_891}
    assert await books.accounts(*ACCOUNTS) == dict.fromkeys(ACCOUNTS, 0) | standing | ends
    assert await books.broken() == set()


async def test_a_rate_is_published_once_and_noted(books: TaxBooks) -> None:
    made = await books.publish("DE", "19")
    assert await books.publish("DE", "19") == made
    for percent, inclusive in (("16", False), ("19", True)):
        with pytest.raises(Conflict, match="rates never change"):
            await books.publish("DE", percent, inclusive=inclusive)
    [audited] = await rows(books.database, AuditRow)
    assert (audited.action, audited.actor, audited.resource) == ("tax_rate.published", OPERATOR, made)
    assert audited.organization_id is None
    assert audited.details == {
        "jurisdiction": "DE",
        "name": "VAT",
        "rate": 190_000,
        "inclusive": False,
        "effective_from_ms": period_start_ms("2026-01", "UTC"),
    }


async def test_a_profile_is_changed_and_noted(books: TaxBooks) -> None:
    assert (await books.profiles.get(ACME)).since_period is None
    await books.live_in("DE")
    changed = await books.live_in("FR", "exempt", "a hospital")
    assert changed == await books.profiles.get(ACME)
    assert (changed.profile, changed.since_period) == (TaxProfile("FR", "exempt", "a hospital"), BEGINNING)
    audited = (await rows(books.database, AuditRow))[-1]
    assert (audited.action, audited.actor, audited.resource) == ("organization.tax_changed", OPERATOR, ACME)
    stated = {"jurisdiction": "FR", "exemption": "exempt", "reason": "a hospital"}
    assert audited.details == stated | {"since_period": BEGINNING}
    assert audited.before == {"jurisdiction": "DE", "exemption": "none", "reason": ""}
    with pytest.raises(InvalidRequest, match="needs a reason"):
        await books.live_in("DE", "reverse_charge")
    assert (await books.profiles.get(GLOBEX)).since_period is None


@SQLITE
async def test_monthly_spending_and_the_wallet_count_usage_without_tax(books: TaxBooks) -> None:
    await books.publish("DE", "19")
    await books.live_in("DE")
    await books.grant(DOLLAR)
    await books.use(DOLLAR, at_ms=MARCH_MS + DAY_MS)
    await books.draft()
    assert await books.accounts("wallet") == {"wallet": 0}
    assert await books.broken() == set()
