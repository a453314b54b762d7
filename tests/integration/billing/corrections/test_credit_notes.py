"""What a correction takes back of an issued invoice stands on a credit note; the invoice stays as it is."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from support.billing.invoice_books import OPERATOR, InvoiceBooks
from support.billing.stand import ACME, MARCH_MS, MODEL, PRICE, balance, rows, usage
from tokenyard.core.errors import Conflict
from tokenyard.storage.database import Database
from tokenyard.tenancy.tables import AuditRow
from tokenyard_billing.invoice_tables import CreditNote, CreditNoteLine, Invoice, InvoiceLine, Settlement
from tokenyard_billing.invoicing.settling import InvoiceSettlements
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.journal import Posting
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.tables import Alarm

APRIL_MS = MARCH_MS + 31 * DAY_MS
INVOICE = "inv_acme_2026-03"


@pytest.fixture
async def books(database: Database, redis: Redis) -> InvoiceBooks:
    """March is closed: 500 and 3,000 were used, 300 paid by credit, and 3,200 are due."""
    books = InvoiceBooks(database, redis)
    await books.grant(300)
    await books.spend("req_a", usage(1, 1))
    await books.spend("req_b", usage(10, 5))
    books.clock.advance((APRIL_MS - MARCH_MS) / 1000)
    await books.close()
    return books


@pytest.fixture
def settlements(books: InvoiceBooks) -> InvoiceSettlements:
    return books.settling()


async def notes(books: InvoiceBooks) -> list[tuple[str, str, int, int, str, int]]:
    async with books.database.reading() as session:
        found = await session.scalars(select(CreditNote).order_by(CreditNote.sequence))
        return [
            (one.number or "", one.invoice, one.total, one.lowered, one.lowered_account, one.credited) for one in found
        ]


async def accounts(books: InvoiceBooks) -> dict[str, int]:
    names = "wallet", "revenue", "receivable", "cash", "adjustments", "written_off"
    found = {name: await balance(books.database, ACME, name) for name in names}
    return {name: amount for name, amount in found.items() if amount}


async def test_what_is_due_is_lowered(books: InvoiceBooks, settlements: InvoiceSettlements) -> None:
    before = await rows(books.database, InvoiceLine)
    await books.correct("cheap", request="req_b")
    await books.agree()
    assert await notes(books) == [("CN-000001", INVOICE, 1_000, 1_000, "receivable", 0)]
    assert await accounts(books) == {"revenue": 2_500, "receivable": -2_200}
    invoice = await books.invoice("2026-03")
    assert (invoice.state, invoice.total, invoice.amount_due) == ("open", 3_500, 3_200)
    assert [vars(line)["amount"] for line in await rows(books.database, InvoiceLine)] == [one.amount for one in before]
    await settlements.pay(INVOICE, reference="bank 17", idempotency_key="a", actor=OPERATOR)
    [paid] = await rows(books.database, Settlement)
    assert paid.amount == 2_200
    assert await accounts(books) == {"revenue": 2_500, "cash": -2_200}
    await books.agree()


async def test_its_lines_take_back_one_price_and_bill_the_other(books: InvoiceBooks) -> None:
    await books.correct("cheap", period="2026-03")
    async with books.database.reading() as session:
        columns = CreditNoteLine.price, CreditNoteLine.kind, CreditNoteLine.quantity, CreditNoteLine.amount
        found = [tuple(row) for row in await session.execute(select(*columns).order_by(CreditNoteLine.number))]
    cheap = f"cheap/{MODEL}"
    assert found == [
        (PRICE, "input", 11, 1_100),
        (PRICE, "output", 6, 2_400),
        (cheap, "input", -11, -1_100),
        (cheap, "output", -6, -1_200),
    ]
    [note] = await rows(books.database, CreditNote)
    audited = [one for one in await rows(books.database, AuditRow) if one.resource == note.id]
    assert [(one.action, one.actor, one.details["number"]) for one in audited] == [
        ("credit_note.issued", OPERATOR, "CN-000001")
    ]


async def test_what_was_paid_by_credit_is_credit_again(books: InvoiceBooks) -> None:
    await books.correct(period="2026-03")
    await books.agree()
    assert await notes(books) == [("CN-000001", INVOICE, 3_500, 3_200, "receivable", 300)]
    assert (await books.invoice("2026-03")).state == "paid"
    assert await accounts(books) == {"wallet": 300}
    await books.use(1_000, at_ms=APRIL_MS)
    await books.draft()
    assert (await books.bills())[1:] == [("2026-04", 1_000, 300, 700)]
    await books.agree()


async def test_what_was_paid_by_money_is_credit(books: InvoiceBooks, settlements: InvoiceSettlements) -> None:
    await settlements.pay(INVOICE, reference="bank 17", idempotency_key="a", actor=OPERATOR)
    await books.correct(request="req_b")
    await books.agree()
    assert await notes(books) == [("CN-000001", INVOICE, 3_000, 0, "", 3_000)]
    assert await accounts(books) == {"wallet": 3_000, "revenue": 500, "cash": -3_200}
    await books.use(1_000, at_ms=APRIL_MS)
    await books.draft()
    assert (await books.bills())[1:] == [("2026-04", 1_000, 1_000, 0)]
    await books.agree()


@pytest.mark.parametrize(("state", "account"), [("void", "adjustments"), ("uncollectible", "written_off")])
async def test_of_what_was_let_go_less_was_let_go(
    books: InvoiceBooks, settlements: InvoiceSettlements, state: str, account: str
) -> None:
    await books.correct("cheap", request="req_b")
    end = settlements.void if state == "void" else settlements.write_off
    await end(INVOICE, reason="x", actor=OPERATOR)
    assert await accounts(books) == {"revenue": 2_500, account: -2_200}
    await books.correct(request="req_b")
    await books.agree()
    assert (await notes(books))[1] == ("CN-000002", INVOICE, 2_000, 2_000, account, 0)
    assert await accounts(books) == {"revenue": 500, account: -200}
    await books.correct(request="req_a")
    await books.agree()
    assert (await notes(books))[2] == ("CN-000003", INVOICE, 500, 200, account, 300)
    assert await accounts(books) == {"wallet": 300}


async def test_an_invoice_that_claims_nothing_more_is_paid(
    books: InvoiceBooks, settlements: InvoiceSettlements
) -> None:
    await books.correct(request="req_b")
    await books.correct("cheap", request="req_a")
    assert [one[2:] for one in await notes(books)] == [(3_000, 3_000, "receivable", 0), (200, 200, "receivable", 0)]
    invoice = await books.invoice("2026-03")
    assert invoice.state == "paid"
    with pytest.raises(Conflict, match="is paid"):
        await settlements.pay(INVOICE, reference="bank 17", idempotency_key="a", actor=OPERATOR)
    await books.agree()


async def test_what_costs_more_is_billed_with_the_next_invoice(books: InvoiceBooks) -> None:
    await books.correct("dear", request="req_b")
    await books.agree()
    assert await notes(books) == []
    assert await books.bills() == [("2026-03", 3_500, 300, 3_200), ("2026-04", 2_000, 0, 2_000)]
    lines = [one for one in await rows(books.database, InvoiceLine) if one.invoice == "inv_acme_2026-04"]
    assert sorted((one.usage_period, one.kind, one.amount) for one in lines) == [
        ("2026-03", "input", -1_000),
        ("2026-03", "input", 1_000),
        ("2026-03", "output", -2_000),
        ("2026-03", "output", 4_000),
    ]


async def test_one_correction_is_of_drafts_and_of_issued_invoices(books: InvoiceBooks) -> None:
    await books.spend("req_c", usage(10, 5), at_ms=APRIL_MS)
    books.clock.advance(31 * DAY_MS / 1000)
    await books.close()
    await books.spend("req_d", usage(10, 5), at_ms=APRIL_MS + 31 * DAY_MS)
    done = await books.correct("cheap", since_ms=0)
    assert (done.charges, done.lowered) == (4, 3_200)
    await books.agree()
    assert [(one[0], one[1], one[2]) for one in await notes(books)] == [
        ("CN-000001", INVOICE, 1_200),
        ("CN-000002", "inv_acme_2026-04", 1_000),
    ]
    assert (await books.bills())[2:] == [("2026-05", 2_000, 0, 2_000)]


SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # other tests ask PostgreSQL all the same


@SQLITE
@pytest.mark.parametrize(
    ("tampering", "expected"),
    [
        (
            "UPDATE billing_credit_notes SET total = 900, lowered = 900, due_lowered = 900",
            {
                "credit_note_not_charges",
                "credit_note_not_journal",
                "open_invoices_not_receivable",
            },
        ),
        ("UPDATE billing_credit_notes SET lowered = 900, credited = 100", {"credit_note_not_journal"}),
        (
            "UPDATE billing_credit_notes SET rounding = 10000001, due_lowered = due_lowered + 10000001",
            {"credit_note_not_rounded", "credit_notes_too_much"},
        ),
        ("UPDATE billing_credit_notes SET sequence = 2", {"credit_note_numbers_gap"}),
        ("UPDATE billing_credit_note_lines SET amount = 0 WHERE number = 0", {"credit_note_not_lines"}),
        ("DELETE FROM billing_credit_note_lines", {"credit_note_not_lines"}),
        ("UPDATE billing_charges SET amount = -2900 WHERE reverses = 'req_b'", {"reversal_not_charge"}),
        ("UPDATE billing_charges SET credit_note = NULL WHERE reverses = 'req_b'", {"credit_note_not_charges"}),
    ],
)
async def test_what_was_tampered_with_is_found(books: InvoiceBooks, tampering: str, expected: set[str]) -> None:
    await books.correct("cheap", request="req_b")
    await books.draft()
    assert await books.broken() == set()
    async with books.database.transaction() as session:
        await session.execute(text(tampering))
    assert expected <= {name for name, _ in await books.broken()}


async def test_a_note_counts_as_credit_while_it_is_not_issued(
    books: InvoiceBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long correction is seen by reconcile amid its parts."""
    monkeypatch.setattr("tokenyard_billing.corrections.applying.PART", 1)
    monkeypatch.setattr("tokenyard_billing.corrections.loops.PARTS", 1)
    await books.correct(period="2026-03")
    [note] = await rows(books.database, CreditNote)
    assert (note.issued_at_ms, note.total) == (None, 500)
    await books.agree()
    for _ in range(2):
        await books.worker.corrections.step()
    await books.agree()
    assert await notes(books) == [("CN-000001", INVOICE, 3_500, 3_200, "receivable", 300)]
    assert {one.state for one in await rows(books.database, Invoice)} == {"paid"}


async def test_a_payment_amid_the_notes_of_two_invoices_blocks_nobody(
    books: InvoiceBooks, settlements: InvoiceSettlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lock an invoice and then what is to be received."""
    await books.spend("req_c", usage(10, 5), at_ms=APRIL_MS)
    books.clock.advance(31 * DAY_MS / 1000)
    await books.close()
    applying = []

    async def post_later(session: AsyncSession, postings: Sequence[Posting], at_ms: int) -> list[str]:
        monkeypatch.undo()
        applying.append(asyncio.create_task(books.correct("cheap", since_ms=0)))
        await asyncio.sleep(0.5)
        return await journal.post(session, postings, at_ms)

    monkeypatch.setattr(journal, "post", post_later)
    await settlements.pay("inv_acme_2026-04", reference="bank 17", idempotency_key="a", actor=OPERATOR)
    await asyncio.gather(*applying)
    assert await rows(books.database, Alarm) == []
    assert [one[1:4] for one in await notes(books)] == [
        (INVOICE, 1_200, 1_200),
        ("inv_acme_2026-04", 1_000, 0),
    ]
    await books.agree()
