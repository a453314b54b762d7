"""Invoices that were tampered with are found by name; those that are marked to be drawn again are on their way."""

import pytest

from support.billing.busy_books import BusyBooks
from support.billing.stand import ACME, MODEL, PRICE

INVOICE = "inv_acme_{month}"
BILLED = f"{INVOICE}/{{month}}/{MODEL}/{PRICE}"
MARK = """INSERT INTO billing_stale_invoices (organization, period, bucket, marks, retry_at_ms)
          VALUES ('org_acme', '{}', 0, 1, 0)"""


@pytest.mark.parametrize(
    ("tampering", "expected"),
    [
        (
            "UPDATE billing_invoices SET total = total + 1, amount_due = amount_due + 1 WHERE id = '{invoice}'",
            {("invoice_not_lines", INVOICE), ("invoices_not_ledger", ACME), ("invoice_credit_wrong", INVOICE)},
        ),
        (
            "UPDATE billing_invoices SET total = total + 1 WHERE id = '{invoice}'",
            {("invoice_not_lines", INVOICE), ("invoice_not_due", INVOICE), ("invoices_not_ledger", ACME)},
        ),
        (
            "UPDATE billing_invoices SET credit_applied = credit_applied + 1 WHERE id = '{invoice}'",
            {("invoice_not_lines", INVOICE), ("invoice_not_due", INVOICE)},
        ),
        (
            "UPDATE billing_invoices SET credit_applied = 0, amount_due = total WHERE id = '{invoice}'",
            {("invoice_not_lines", INVOICE), ("invoice_credit_wrong", INVOICE)},
        ),
        (
            "UPDATE billing_invoice_lines SET rate = rate + 1 WHERE invoice = '{invoice}' AND number = 0",
            {("invoice_line_not_rate", f"{INVOICE}/0")},
        ),
        (
            "UPDATE billing_invoice_lines SET price = 'gone' WHERE invoice = '{invoice}'",
            {("invoice_not_charges", BILLED), ("invoice_not_charges", f"{INVOICE}/{{month}}/{MODEL}/gone")},
        ),
        (
            "DELETE FROM billing_invoices WHERE id = '{invoice}'",
            {("invoice_missing", f"{ACME}/{{month}}"), ("invoices_not_ledger", ACME)},
        ),
        (
            "UPDATE billing_invoices SET period = '2999-01' WHERE id = '{invoice}'",
            {("invoice_missing", f"{ACME}/{{month}}"), ("invoice_not_charges", BILLED)},
        ),
        (
            "UPDATE billing_credit_grants SET amount = amount + 1 WHERE organization = 'org_acme'",
            {("invoices_not_ledger", ACME)},
        ),
        (
            "DELETE FROM billing_credit_grants WHERE organization = 'org_acme'",
            {("invoice_credit_wrong", INVOICE), ("invoices_not_ledger", ACME)},
        ),
    ],
)
async def test_an_invoice_that_was_tampered_with_is_found_by_name(
    books: BusyBooks, tampering: str, expected: set[tuple[str, str]]
) -> None:
    names = {"month": books.month, "invoice": INVOICE.format(month=books.month)}
    await books.tamper(tampering.format(**names))
    assert await books.broken() == {(name, subject.format(**names)) for name, subject in expected}


@pytest.mark.parametrize("marked", ["{month}", "2020-01"])
async def test_an_invoice_is_on_its_way_while_it_or_an_earlier_one_is_marked(books: BusyBooks, marked: str) -> None:
    await books.tamper(MARK.format(marked.format(month=books.month)))
    await books.tamper("DELETE FROM billing_invoices WHERE organization = 'org_acme'")
    assert await books.broken() == set()


async def test_a_mark_does_not_cover_what_must_always_add_up(books: BusyBooks) -> None:
    await books.tamper(MARK.format(books.month))
    await books.tamper("UPDATE billing_invoices SET total = total + 1 WHERE organization = 'org_acme'")
    invoice = INVOICE.format(month=books.month)
    assert await books.broken() == {("invoice_not_lines", invoice), ("invoice_not_due", invoice)}


async def test_a_mark_of_one_organization_covers_no_other(books: BusyBooks) -> None:
    await books.tamper(MARK.format(books.month))
    await books.tamper("DELETE FROM billing_invoices WHERE organization = 'org_globex'")
    assert await books.broken() == {
        ("invoice_missing", f"org_globex/{books.month}"),
        ("invoices_not_ledger", "org_globex"),
    }
