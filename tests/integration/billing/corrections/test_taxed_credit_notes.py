"""A credit note gives tax back as its invoice claimed it, and lowers what is due by whole cents."""

import pytest
from redis.asyncio import Redis

from support.billing.stand import MARCH_MS, MODEL, usage
from support.billing.tax_books import APRIL_MS, DOLLAR, MAY_MS, OPERATOR, TaxBooks
from tokenyard.core.money import CENT
from tokenyard.core.usage import TokenUsage
from tokenyard.storage.database import Database
from tokenyard_billing.invoice_tables import CreditNote, CreditNoteLine
from tokenyard_billing.periods import DAY_MS

ACCOUNTS = ("wallet", "receivable", "revenue", "tax", "rounding", "cash", "adjustments", "written_off")
MARCH = "inv_acme_2026-03"
ONE: TokenUsage = usage(10_000_000, 0)
"""What costs one dollar: 10 million tokens of input."""


@pytest.fixture
def books(database: Database, redis: Redis) -> TaxBooks:
    return TaxBooks(database, redis)


async def issued(books: TaxBooks, percent: str, *, inclusive: bool = False) -> None:
    """March has req_a, for $1, and req_b, for $2."""
    await books.publish("DE", percent, inclusive=inclusive)
    await books.live_in("DE")
    await books.spend("req_a", ONE)
    await books.spend("req_b", usage(20_000_000, 0))
    books.at(APRIL_MS)
    await books.close()
    assert await books.broken() == set()


async def notes(books: TaxBooks) -> list[tuple[int, ...]]:
    found = sorted(await books.rows(CreditNote), key=lambda one: int(one.sequence))
    names = ("total", "lowered", "tax", "tax_included", "rounding", "due_lowered", "credited")
    return [tuple(getattr(one, name) for name in names) for one in found]


async def moved(books: TaxBooks) -> dict[str, int]:
    return {name: amount for name, amount in (await books.accounts(*ACCOUNTS)).items() if amount}


async def test_tax_on_top_is_given_back(books: TaxBooks) -> None:
    """19 % of $3: $3.57 are due; of $1 taken back, $1.19 less."""
    await issued(books, "19")
    await books.correct(request="req_a")
    assert await notes(books) == [(DOLLAR, DOLLAR, 190_000_000, 0, 0, 119 * CENT, 0)]
    assert await moved(books) == {"receivable": -238 * CENT, "revenue": 2 * DOLLAR, "tax": 380_000_000}
    assert await books.broken() == set()
    await books.settlements.pay(MARCH, reference="bank", idempotency_key="a", actor=OPERATOR)
    assert await moved(books) == {"cash": -238 * CENT, "revenue": 2 * DOLLAR, "tax": 380_000_000}
    assert await books.broken() == set()


async def test_tax_that_prices_hold_is_revenue_no_more_and_then_again(books: TaxBooks) -> None:
    """10 % in $3 are $0.272727273; in the $1 that is taken back $0.090909091."""
    await issued(books, "10", inclusive=True)
    await books.correct(request="req_a")
    assert await notes(books) == [(DOLLAR, DOLLAR, 90_909_091, 90_909_091, 0, DOLLAR, 0)]
    assert await moved(books) == {"receivable": -2 * DOLLAR, "revenue": 1_818_181_818, "tax": 181_818_182}
    assert await books.broken() == set()


@pytest.mark.parametrize("inclusive", [False, True])
async def test_who_gets_all_back_owes_nothing_to_anyone(books: TaxBooks, inclusive: bool) -> None:
    """7 % of $3.3000004: cents are rounded, and nothing is left of that."""
    await books.spend("req_c", usage(3_000_004, 0))
    await issued(books, "7", inclusive=inclusive)
    await books.correct(period="2026-03")
    assert await moved(books) == {}
    assert (await books.invoice("2026-03")).state == "paid"
    assert await books.broken() == set()


@pytest.mark.parametrize("inclusive", [False, True])
async def test_a_void_invoice_gives_no_tax_back_twice(books: TaxBooks, inclusive: bool) -> None:
    await issued(books, "19", inclusive=inclusive)
    await books.correct(request="req_a")
    await books.settlements.void(MARCH, reason="x", actor=OPERATOR)
    assert (await moved(books)).get("tax", 0) == 0
    assert await books.broken() == set()
    await books.correct(request="req_b")
    assert {name for name, amount in (await moved(books)).items() if abs(amount) > CENT} == set()
    assert await books.broken() == set()


async def test_what_is_written_off_owes_less_tax(books: TaxBooks) -> None:
    await issued(books, "19")
    await books.settlements.write_off(MARCH, reason="bankrupt", actor=OPERATOR)
    assert await moved(books) == {"written_off": -357 * CENT, "revenue": 3 * DOLLAR, "tax": 570_000_000}
    await books.correct(request="req_b")
    assert await moved(books) == {"written_off": -119 * CENT, "revenue": DOLLAR, "tax": 190_000_000}
    assert await books.broken() == set()


async def test_what_becomes_credit_lowers_the_tax_of_later_invoices(books: TaxBooks) -> None:
    """$3.57 were paid; the $1 that is credit saves the next invoice $1.19."""
    await issued(books, "19")
    await books.settlements.pay(MARCH, reference="bank", idempotency_key="a", actor=OPERATOR)
    await books.correct(request="req_a")
    assert await notes(books) == [(DOLLAR, 0, 0, 0, 0, 0, DOLLAR)]
    await books.spend("req_d", usage(20_000_000, 0), at_ms=APRIL_MS)
    await books.draft()
    found = await books.amounts("2026-04")
    assert (found["credit_applied"], found["tax"], found["amount_due"]) == (DOLLAR, 190_000_000, 119 * CENT)
    assert await books.broken() == set()


async def test_what_costs_more_is_taxed_with_the_next_invoice(books: TaxBooks) -> None:
    await issued(books, "19")
    await books.spend("req_e", usage(0, 2_500_000), at_ms=MARCH_MS + 1)
    await books.draft()
    await books.correct("dear", request="req_e")
    await books.draft()
    found = await books.amounts("2026-04")
    assert (found["total"], found["tax"]) == (2 * DOLLAR, 380_000_000)
    assert await books.broken() == set()


async def test_credit_pays_for_what_costs_more_of_two_rates_and_leaves_no_tax(books: TaxBooks) -> None:
    """Both months cost $1 more, of which the next invoice bills the old price below 0, and the new one."""
    await books.publish("DE", "16", from_ms=APRIL_MS)
    await issued(books, "19")
    await books.spend("req_d", usage(0, 2_500_000), at_ms=MARCH_MS)
    await books.spend("req_e", usage(0, 2_500_000), at_ms=APRIL_MS)
    books.at(MAY_MS)
    await books.close()
    await books.correct("dear", since_ms=0, model=MODEL)
    await books.grant(DOLLAR * 3 // 2)
    await books.draft()
    found = await books.amounts("2026-05")
    assert (found["total"], found["tax"], found["amount_due"]) == (2 * DOLLAR, 95_000_000, 595_000_000)
    await books.grant(DOLLAR)
    books.at(MAY_MS + 32 * DAY_MS)
    await books.close()
    bill = await books.invoice("2026-05")
    assert (bill.credit_applied, bill.tax, bill.amount_due, bill.state) == (2 * DOLLAR, 0, 0, "paid")
    assert await books.broken() == set()


async def test_many_small_notes_take_off_what_they_say(books: TaxBooks) -> None:
    """Eleven times $0.004 are $0.04; ten of them taken back leave nothing that can be paid."""
    for number in range(11):
        await books.spend(f"req_{number}", usage(40_000, 0))
    books.at(APRIL_MS)
    await books.close()
    for number in range(5):
        await books.correct(request=f"req_{number}")
    assert await books.accounts("receivable", "rounding") == {"receivable": -2 * CENT, "rounding": -CENT * 2 // 5}
    for number in range(5, 10):
        await books.correct(request=f"req_{number}")
    assert [one[5] for one in await notes(books)] == [0, 0, CENT, 0, CENT, 0, 0, CENT, 0, CENT]
    assert (await books.invoice("2026-03")).state == "paid"
    assert await books.broken() == set()


async def test_no_more_tax_goes_back_than_was_claimed(books: TaxBooks) -> None:
    """April has $10 at 19 %, of which credit paid half, and $10 of March, which was not taxed: $15.95 are due."""
    await books.publish("DE", "19", from_ms=APRIL_MS)
    await books.live_in("DE")
    await books.spend("req_a", ONE)
    books.at(APRIL_MS)
    await books.close()
    await books.grant(5 * DOLLAR)
    await books.spend("req_b", usage(100_000_000, 0), at_ms=APRIL_MS)
    await books.spend("req_c", usage(100_000_000, 0))
    books.at(MAY_MS)
    await books.close()
    await books.correct(request="req_b")
    assert await notes(books) == [(10 * DOLLAR, 5 * DOLLAR, 950_000_000, 0, 0, 595 * CENT, 5 * DOLLAR)]
    assert await books.accounts("wallet", "tax") == {"wallet": 5 * DOLLAR, "tax": 0}
    await books.correct(request="req_c")
    assert (await notes(books))[1] == (10 * DOLLAR, 10 * DOLLAR, 0, 0, 0, 1_000 * CENT, 0)
    assert await moved(books) == {"wallet": 5 * DOLLAR, "receivable": -100 * CENT, "revenue": DOLLAR}
    await books.draft()
    assert await books.broken() == set()


async def test_lines_say_how_they_are_taxed(books: TaxBooks) -> None:
    await books.spend("req_f", usage(10_000_000, 1_000_000))
    await issued(books, "19")
    await books.correct("cheap", request="req_f")
    lines = await books.rows(CreditNoteLine)
    assert {(one.tax_name, one.tax_rate) for one in lines} == {("VAT", 190_000)}
    assert sum(one.amount for one in lines) == DOLLAR // 5
    assert sum(one.tax for one in lines) == 38_000_000
    assert await books.broken() == set()
