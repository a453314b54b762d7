"""What cost more after its period was closed, and is corrected again: each bill takes back what it billed."""

import pytest
from redis.asyncio import Redis

from support.billing.stand import usage
from support.billing.tax_books import APRIL_MS, DOLLAR, MAY_MS, OPERATOR, TaxBooks
from tokenyard.core.ids import RequestId
from tokenyard.core.money import CENT
from tokenyard.storage.database import Database
from tokenyard_billing.invoice_tables import CreditNote
from tokenyard_billing.proof.operator_store import BillingOperatorStore

MARCH, APRIL = "inv_acme_2026-03", "inv_acme_2026-04"


@pytest.fixture
async def books(database: Database, redis: Redis) -> TaxBooks:
    """March is closed, and has a charge of $1; it costs $2 now, so that $1 is billed in April."""
    books = TaxBooks(database, redis)
    await books.publish("DE", "19")
    await books.live_in("DE")
    await books.spend("req_a", usage(0, 2_500_000))
    await close(books, APRIL_MS)
    await books.correct("dear", request="req_a")
    await books.draft()
    return books


async def close(books: TaxBooks, at_ms: int) -> None:
    books.at(at_ms)
    await books.close()
    await agree(books)


async def agree(books: TaxBooks) -> None:
    await books.draft()
    assert await books.broken() == set()


async def notes(books: TaxBooks) -> list[tuple[str, int, int, int]]:
    found = sorted(await books.rows(CreditNote), key=lambda one: int(one.sequence))
    return [(one.invoice, one.total, one.due_lowered, one.credited) for one in found]


async def test_a_draft_is_not_below_0(books: TaxBooks) -> None:
    done = await books.correct(request="req_a")
    await agree(books)
    assert (done.charges, done.lowered, done.raised) == (1, 2 * DOLLAR, 0)
    assert await notes(books) == [(MARCH, DOLLAR, 119 * CENT, 0)]
    assert (await books.amounts("2026-04"))["total"] == 0
    assert set((await books.accounts("wallet", "receivable", "revenue", "tax", "rounding")).values()) == {0}
    await close(books, MAY_MS)
    assert (await books.amounts("2026-04"))["amount_due"] == 0


async def test_all_of_it_is_in_the_story_of_the_request(books: TaxBooks) -> None:
    await books.correct(request="req_a")
    story = await BillingOperatorStore(books.database, books.redis).request(RequestId("req_a"))
    assert sorted((one.charge_key, one.amount) for one in story.corrections) == [
        ("req_a~1", 2 * DOLLAR),
        ("req_a~1~as~2026-03", DOLLAR),
        ("req_a~1~as~2026-03~reversed", -DOLLAR),
        ("req_a~1~reversed", -2 * DOLLAR),
        ("req_a~reversed", -DOLLAR),
    ]


async def test_what_costs_less_than_at_first_is_rated_anew_on_the_first_bill(books: TaxBooks) -> None:
    await books.correct("cheap", request="req_a")
    await agree(books)
    assert await notes(books) == [(MARCH, DOLLAR // 2, 59 * CENT, 0)]
    assert (await books.amounts("2026-04"))["total"] == 0
    await books.correct("dear", request="req_a")
    await agree(books)
    assert (await books.amounts("2026-04"))["total"] == DOLLAR * 3 // 2
    await books.correct(request="req_a")
    await agree(books)
    assert [one[:2] for one in await notes(books)] == [(MARCH, DOLLAR // 2), (MARCH, DOLLAR // 2)]
    assert set((await books.accounts("wallet", "revenue", "tax")).values()) == {0}


async def test_of_two_issued_invoices_each_takes_back_its_part(books: TaxBooks) -> None:
    """Also where the first is void: what nobody paid is no credit."""
    await close(books, MAY_MS)
    await books.settlements.void(MARCH, reason="a promise", actor=OPERATOR)
    await books.correct(request="req_a")
    await agree(books)
    assert await notes(books) == [(MARCH, DOLLAR, 119 * CENT, 0), (APRIL, DOLLAR, 119 * CENT, 0)]
    assert {(await books.invoice(period)).state for period in ("2026-03", "2026-04")} == {"void", "paid"}
    assert set((await books.accounts("wallet", "receivable", "revenue", "tax", "adjustments")).values()) == {0}
