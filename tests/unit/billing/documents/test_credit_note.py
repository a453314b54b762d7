"""What a credit note says: what was taken back, of which invoice, and how that is made good."""

from support.billing.bills import BUYER, ISSUED_MS, SELLER, invoice
from support.billing.stand import ACME, MODEL, PRICE
from tokenyard_billing.documents.credit_note import CreditNoteBill, credit_note_document
from tokenyard_billing.documents.document import BillDocument
from tokenyard_billing.invoice_tables import CreditNote, CreditNoteLine
from tokenyard_billing.parties.snapshots import Parties


def lines(*amounts: int, tax_rate: int = 190_000) -> list[CreditNoteLine]:
    """Lines of tokens at 100 nano-dollars; tax comes on top."""
    return [
        CreditNoteLine(
            number=number,
            usage_period="2026-03",
            model=MODEL,
            price=PRICE,
            kind="input",
            quantity=amount // 100,
            rate=100,
            amount=amount,
            credit_applied=0,
            tax_name="VAT" if tax_rate else "",
            tax_rate=tax_rate,
            tax_inclusive=False,
            tax=amount * tax_rate // 1_000_000,
        )
        for number, amount in enumerate(amounts)
    ]


def document(note_lines: list[CreditNoteLine], **amounts: int) -> BillDocument:
    note = CreditNote(
        id="cn_1_2026-03",
        organization=ACME,
        invoice="inv_acme_2026-03",
        reason="a price that was promised",
        number="CN-000003",
        issuer="tokenyard",
        issued_at_ms=ISSUED_MS,
        lines=note_lines,
        **{"lowered": 0, "rounding": 0, "due_lowered": 0, "credited": 0, **amounts},
    )
    return credit_note_document(CreditNoteBill(note, invoice(()), Parties(SELLER, BUYER)))


def sums(of: BillDocument) -> list[tuple[str, str, bool]]:
    return [(row.label, row.amount.text, row.strong) for row in of.sums]


def test_what_lowers_an_invoice_says_which_and_by_how_much() -> None:
    found = document(
        lines(3_000_000_000, -1_000_000_000),
        total=2_000_000_000,
        lowered=2_000_000_000,
        rounding=0,
        due_lowered=2_380_000_000,
    )
    assert (found.title, found.name, found.watermark, found.payment) == ("Credit note", "CN-000003", "", [])
    assert {fact.label: fact.text for fact in found.facts}["Invoice"] == "INV-000007 of March 2026"
    assert sums(found) == [
        ("Subtotal", "2.00", False),
        ("VAT 19 % on 2.00", "0.38", False),
        ("Total credited (USD)", "2.38", True),
        ("Less to be paid of INV-000007", "2.38", False),
    ]
    assert [line.amount.text for line in found.periods[0].models[0].lines] == ["3.00", "-1.00"]
    assert found.notes[0] == "Reason: a price that was promised"
    assert (found.seller.name, found.buyer.name) == ("Tokenhof GmbH", "Acme Widgets Ltd")


def test_what_was_paid_is_credit() -> None:
    found = document(lines(2_000_000_000, tax_rate=0), total=2_000_000_000, credited=2_000_000_000)
    assert sums(found) == [
        ("Subtotal", "2.00", False),
        ("Total credited (USD)", "2.00", True),
        ("Added to your credit", "2.00", False),
    ]
