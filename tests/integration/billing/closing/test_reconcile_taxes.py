"""Taxes that were tampered with are found by name."""

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from support.billing.stand import ACME, GLOBEX
from support.billing.tax_books import APRIL_MS, OPERATOR, TaxBooks
from tokenyard.storage.database import Database

MARCH, APRIL, VOID = "inv_acme_2026-03", "inv_acme_2026-04", "inv_globex_2026-03"


@pytest.fixture
async def books(database: Database, redis: Redis) -> TaxBooks:
    """March is closed, of one organization open and of the other void; April is drafted, with prices that hold tax."""
    books = TaxBooks(database, redis)
    await books.publish("DE", "19")
    await books.publish("AU", "10", inclusive=True)
    for organization in (ACME, GLOBEX):
        await books.live_in("DE", organization=organization)
        await books.use(12_345_678_900, organization)
    books.at(APRIL_MS)
    await books.close()
    await books.settlements.void(VOID, reason="x", actor=OPERATOR)
    await books.live_in("AU")
    await books.use(1_000_000_000, at_ms=APRIL_MS)
    await books.draft()
    return books


async def test_books_with_taxes_agree(books: TaxBooks) -> None:
    assert await books.broken() == set()


@pytest.mark.parametrize(
    ("tampering", "expected"),
    [
        (
            f"UPDATE billing_invoice_lines SET tax = tax + 1 WHERE invoice = '{MARCH}'",
            {("invoice_line_not_tax", f"{MARCH}/0"), ("invoice_not_lines", MARCH)},
        ),
        (
            f"UPDATE billing_invoice_lines SET tax_rate = 180000 WHERE invoice = '{MARCH}'",
            {("invoice_line_not_tax", f"{MARCH}/0")},
        ),
        (
            f"UPDATE billing_invoice_lines SET tax_inclusive = false WHERE invoice = '{APRIL}'",
            {("invoice_line_not_tax", f"{APRIL}/0"), ("invoice_not_lines", APRIL)},
        ),
        (
            f"UPDATE billing_invoice_lines SET credit_applied = 1 WHERE invoice = '{APRIL}'",
            {("invoice_not_lines", APRIL)},  # the tax of a nano-dollar less is the same
        ),
        (
            f"UPDATE billing_invoices SET tax = tax + 1, rounding = rounding - 1 WHERE id = '{MARCH}'",
            {
                ("invoice_not_lines", MARCH),
                ("invoice_tax_not_journal", f"{MARCH}/tax"),
                ("invoice_tax_not_journal", f"{MARCH}/rounding"),
            },
        ),
        (
            f"UPDATE billing_invoices SET tax = tax + 1, tax_included = tax_included + 1 WHERE id = '{MARCH}'",
            {
                ("invoice_not_lines", MARCH),
                ("invoice_tax_not_journal", f"{MARCH}/tax"),
                ("invoice_tax_not_journal", f"{MARCH}/revenue"),
            },
        ),
        (
            f"UPDATE billing_invoices SET rounding = 1, amount_due = amount_due + 1 WHERE id = '{APRIL}'",
            {("invoice_not_rounded", APRIL)},
        ),
        (
            f"UPDATE billing_invoices SET rounding = 5000001, amount_due = amount_due + 5000001 - rounding"
            f" WHERE id = '{MARCH}'",
            {
                ("invoice_not_rounded", MARCH),
                ("invoice_not_journal", MARCH),
                ("open_invoices_not_receivable", ACME),
                ("invoice_tax_not_journal", f"{MARCH}/rounding"),
            },
        ),
        (
            f"UPDATE billing_invoices SET tax = tax + 1 WHERE id = '{APRIL}'",
            {("invoice_not_lines", APRIL), ("invoice_not_due", APRIL)},
        ),
        (
            "UPDATE billing_settlements SET state = 'uncollectible'",
            {
                ("settlement_not_invoice", f"{VOID}/void"),
                ("settlement_not_invoice", f"{VOID}/uncollectible"),
                ("settlement_not_journal", "TRANSACTION/adjustments"),
                ("settlement_not_journal", "TRANSACTION/written_off"),
                ("settlement_not_journal", "TRANSACTION/tax"),
            },
        ),
    ],
)
async def test_what_was_tampered_with_is_found(books: TaxBooks, tampering: str, expected: set[tuple[str, str]]) -> None:
    async with books.database.transaction() as session:
        await session.execute(text(tampering))
        [transaction] = (await session.scalars(text('SELECT "transaction" FROM billing_settlements'))).all()
    assert await books.broken() == {(name, subject.replace("TRANSACTION", transaction)) for name, subject in expected}


async def test_tax_that_was_posted_otherwise_is_found(books: TaxBooks) -> None:
    """The transaction still sums to 0, and the balances are those of its entries."""
    async with books.database.transaction() as session:
        query = text("SELECT id FROM billing_transactions WHERE reference = :invoice AND template = 'invoice'")
        [transaction] = (await session.scalars(query, {"invoice": MARCH})).all()
        for account, sign in (("tax", "-"), ("rounding", "+")):
            names = {"transaction": transaction, "account": account}
            entry = f'UPDATE billing_entries SET amount = amount {sign} 5 WHERE "transaction" = :transaction'
            await session.execute(text(f"{entry} AND account = :account"), names)
            balance = f"UPDATE billing_balances SET amount = amount {sign} 5 WHERE organization = 'org_acme'"
            await session.execute(text(f"{balance} AND account = :account"), {"account": account})
    found = await books.broken()
    assert found == {("invoice_tax_not_journal", f"{MARCH}/{account}") for account in ("tax", "rounding")}
