"""Of every closed period invoice = journal = charges: what was tampered with is found by name."""

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import ACME, GLOBEX, MARCH_MS, MODEL, PRICE
from tokenyard.core.ids import ApiKeyId
from tokenyard.storage.database import Database
from tokenyard_billing.periods import DAY_MS

APRIL_MS = MARCH_MS + 31 * DAY_MS
MARCH, APRIL, PAID = "inv_acme_2026-03", "inv_acme_2026-04", "inv_globex_2026-03"
OPERATOR = ApiKeyId("key_operator")
SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # other tests ask PostgreSQL all the same


@pytest.fixture
async def books(database: Database, redis: Redis) -> InvoiceBooks:
    """March is closed, of one organization paid and of the other open; April has usage of its own and late usage."""
    books = InvoiceBooks(database, redis)
    await books.grant(300)
    for organization in (ACME, GLOBEX):
        await books.use(1_000, organization)
    books.clock.advance((APRIL_MS - MARCH_MS) / 1000)
    await books.close()
    settlements = books.settling()
    await settlements.pay(PAID, reference="bank 17", idempotency_key="once", actor=OPERATOR)
    await books.use(400)
    await books.use(200, at_ms=APRIL_MS)
    await books.draft()
    return books


async def test_books_with_closed_periods_and_late_usage_agree(books: InvoiceBooks) -> None:
    assert await books.broken() == set()
    books.clock.advance(31 * DAY_MS / 1000)
    await books.close()
    assert (await books.invoice("2026-04")).amount_due == 600
    assert await books.broken() == set()


async def test_credit_that_is_dated_in_a_closed_period_goes_to_the_next_invoice(books: InvoiceBooks) -> None:
    """The clock of who granted it was behind, or its commit came after the closing."""
    books.clock.advance((MARCH_MS - APRIL_MS) / 1000)
    await books.grant(50)
    books.clock.advance((APRIL_MS - MARCH_MS) / 1000)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_000, 300, 700), ("2026-04", 600, 50, 550)]
    assert await books.broken() == set()


LINE = f"{MARCH}/2026-03/{MODEL}/{PRICE}"
MARK = "INSERT INTO billing_stale_invoices VALUES ('org_acme', '2020-01', 0, 1, 0)"


@SQLITE
@pytest.mark.parametrize(
    ("tampering", "expected"),
    [
        (
            f"UPDATE billing_invoices SET total = 1100, amount_due = 800 WHERE id = '{MARCH}'",
            {("invoice_not_lines", MARCH), ("invoice_not_journal", MARCH), ("open_invoices_not_receivable", ACME)},
        ),
        (
            f"UPDATE billing_invoice_lines SET quantity = 11, amount = 1100 WHERE invoice = '{MARCH}'",
            {("invoice_not_lines", MARCH), ("invoice_not_charges", LINE)},
        ),
        (
            f"UPDATE billing_invoice_lines SET usage_period = '2026-04' WHERE invoice = '{APRIL}'",
            {
                ("invoice_not_charges", f"{APRIL}/2026-03/{MODEL}/{PRICE}"),
                ("invoice_not_charges", f"{APRIL}/2026-04/{MODEL}/{PRICE}"),
            },
        ),
        (
            "UPDATE billing_charges SET billed_in = '2026-03' WHERE billed_in = '2026-04' AND period = '2026-03'",
            {("invoice_not_charges", LINE), ("invoice_not_charges", f"{APRIL}/2026-03/{MODEL}/{PRICE}")},
        ),
        (
            f"UPDATE billing_invoices SET state = 'draft' WHERE id = '{MARCH}'",
            {
                ("invoice_not_closed", MARCH),
                ("invoice_not_journal", MARCH),
                ("open_invoices_not_receivable", ACME),
                ("invoices_not_ledger", ACME),
            },
        ),
        (
            f"UPDATE billing_invoices SET state = 'paid' WHERE id = '{MARCH}'",
            {("settlement_not_invoice", f"{MARCH}/paid"), ("open_invoices_not_receivable", ACME)},
        ),
        (
            "UPDATE billing_periods SET closed_at_ms = NULL WHERE organization = 'org_acme'",
            {("invoice_not_closed", MARCH)},
        ),
        (
            "UPDATE billing_settlements SET state = 'void'",
            {
                ("settlement_not_invoice", f"{PAID}/paid"),
                ("settlement_not_invoice", f"{PAID}/void"),
                ("settlement_not_journal", "TRANSACTION/adjustments"),
                ("settlement_not_journal", "TRANSACTION/cash"),
                ("cash_not_payments", "org_globex"),
            },
        ),
        (
            "UPDATE billing_invoices SET issuer = NULL, sequence = NULL, number = NULL WHERE sequence = 1",
            {("invoice_not_closed", MARCH), ("invoice_numbers_gap", "tokenyard")},
        ),
        ("UPDATE billing_invoice_numbers SET last = 7", {("invoice_numbers_gap", "tokenyard")}),
        ("UPDATE billing_invoices SET sequence = 9 WHERE sequence = 2", {("invoice_numbers_gap", "tokenyard")}),
        (
            "UPDATE billing_periods SET end_ms = end_ms + 1 WHERE organization = 'org_acme' AND period = '2026-03'",
            {("periods_overlap", "org_acme/2026-04")},
        ),
    ],
)
async def test_what_was_tampered_with_is_found_whatever_is_marked(
    books: InvoiceBooks, tampering: str, expected: set[tuple[str, str]]
) -> None:
    async with books.database.transaction() as session:
        await session.execute(text(tampering))
        [transaction] = (await session.scalars(text('SELECT "transaction" FROM billing_settlements'))).all()
    named = {(name, subject.replace("TRANSACTION", transaction)) for name, subject in expected}
    assert await books.broken() == named


async def test_a_mark_covers_no_issued_invoice(books: InvoiceBooks) -> None:
    async with books.database.transaction() as session:
        await session.execute(text(MARK))
        await session.execute(text(f"UPDATE billing_invoice_lines SET price = 'gone' WHERE invoice = '{MARCH}'"))
    gone = f"{MARCH}/2026-03/{MODEL}/gone"
    assert await books.broken() == {("invoice_not_charges", LINE), ("invoice_not_charges", gone)}


@SQLITE
async def test_a_charge_outside_of_its_period_is_found(books: InvoiceBooks) -> None:
    async with books.database.transaction() as session:
        await session.execute(text("UPDATE billing_charges SET period = '2026-04' WHERE organization = 'org_globex'"))
        [key] = (
            await session.scalars(text("SELECT charge_key FROM billing_charges WHERE organization = 'org_globex'"))
        ).all()
    assert ("charge_in_wrong_period", key) in await books.broken()
