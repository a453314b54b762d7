"""What an invoice's document says in each of its states."""

import pytest

from support.billing.bills import ISSUED_MS, SELLER, bill, draft, invoice, line, settlement
from support.billing.stand import ACME, MODEL
from tokenyard_billing.documents.document import BillDocument, invoice_document
from tokenyard_billing.invoice_tables import CreditNote

LINES = (line(0), line(1, "output", 10, 400), line(2, "input", 5, 100, model="ft:own"))


def said(document: BillDocument) -> dict[str, str]:
    return {fact.label: fact.text for fact in (*document.facts, *document.payment)}


def sums(document: BillDocument) -> list[tuple[str, str]]:
    return [(row.label, row.amount.text) for row in document.sums]


def test_an_open_one_says_who_when_what_and_how_to_pay() -> None:
    found = invoice_document(bill(invoice(LINES, credit=4_500)))
    assert (found.title, found.name, found.watermark, found.dated_s) == ("Invoice", "INV-000007", "", ISSUED_MS // 1000)
    assert found.seller.name == SELLER.legal_name
    assert found.seller.lines == ["Straße des 17. Juni 135", "10623 Berlin", "Germany"]
    assert "VAT ID DE123456789" in found.seller.details
    assert found.buyer.lines == ["1 High Street", "Floor 2", "LS1 1AA Leeds", "United Kingdom"]
    assert "Electronic address 0088:5060012345675" in found.buyer.details
    assert said(found) == {
        "Invoice number": "INV-000007",
        "Date of issue": "2 April 2026",
        "Due date": "2 May 2026",
        "Service period": "1 March 2026 to 31 March 2026",
        "Time zone": "Europe/Berlin",
        "Customer number": ACME,
        "Your reference": "Cost centre 42",
        "Purchase order": "PO-2026-7",
        "Currency": "USD",
        "Please pay": "USD 0.0001 by 2 May 2026",
        "Account holder": "Tokenhof GmbH",
        "IBAN": "DE89 3704 0044 0532 0130 00",
        "BIC": "COBADEFFXXX",
        "Bank": "Commerzbank",
        "Reference": "INV-000007",
    }
    assert found.payment_terms == SELLER.payment_terms
    assert sums(found) == [
        ("Subtotal", "0.0001045"),
        ("Prepaid credit applied", "-0.0000045"),
        ("Total due (USD)", "0.0001"),
    ]


def test_lines_stand_by_period_and_model_and_late_usage_says_so() -> None:
    late = line(3, "output", 7, 400, period="2026-02")
    found = invoice_document(bill(invoice((*LINES, late))))
    own, before = found.periods
    assert (own.title, own.note, before.title) == ("Usage in March 2026", "", "Usage in February 2026")
    assert before.note.startswith("Late usage")
    assert [(model.model, model.amount.text, len(model.lines)) for model in own.models] == [
        (MODEL, "0.000104", 2),
        ("ft:own", "0.0000005", 1),
    ]
    first = own.models[0].lines[0]
    assert (first.what, first.quantity, first.rate) == ("Input tokens", "1,000", "0.10 / 1M tokens")
    assert (first.amount.text, first.amount.padding) == ("0.0001", 3)
    assert (own.amount.text, before.amount.text) == ("0.0001045", "0.0000028")


def test_a_draft_says_that_it_is_one_and_asks_for_nothing() -> None:
    found = invoice_document(bill(draft(LINES)))
    assert (found.title, found.name, found.watermark) == ("Draft invoice", "inv_acme_2026-03", "DRAFT")
    assert not {"Invoice number", "Date of issue", "Due date", "Please pay", "IBAN"} & said(found).keys()
    assert any("draft" in note for note in found.notes)


def test_a_paid_one_says_when_and_that_nothing_is_left() -> None:
    found = invoice_document(bill(invoice(LINES, state="paid", settlement=settlement("paid", 104_500))))
    assert (found.watermark, found.payment) == ("PAID", [])
    assert sums(found)[-2:] == [("Paid on 7 April 2026", "-0.0001045"), ("Outstanding (USD)", "0.00")]
    assert any("bank 17" in note for note in found.notes)


def test_what_a_credit_note_took_back_is_not_asked_for() -> None:
    notes = [CreditNote(due_lowered=4_500)]
    found = invoice_document(bill(invoice(LINES, notes=notes)))
    assert sums(found)[-2:] == [("Taken back by credit notes", "-0.0000045"), ("Outstanding (USD)", "0.0001")]
    assert said(found)["Please pay"].startswith("USD 0.0001 by")
    paid = invoice(LINES, notes=notes, state="paid", settlement=settlement("paid", 100_000))
    assert sums(invoice_document(bill(paid)))[-1] == ("Outstanding (USD)", "0.00")


def test_each_rate_of_tax_stands_with_what_it_is_of() -> None:
    lines = (
        line(1, tax_name="VAT", tax_rate=190_000, tax=15_200, credit_applied=20_000),
        line(2, "output", 10, 400, tax_name="VAT", tax_rate=190_000, tax=760),
        line(3, "output", 7, 400, period="2026-02", tax_name="VAT", tax_rate=160_000, tax=448),
        line(4, "input", 11, 100, period="2026-01", tax_name="GST", tax_rate=100_000, tax_inclusive=True, tax=100),
    )
    made = invoice(lines, credit=20_000, tax=16_508, tax_included=100, rounding=-308, amount_due=104_000)
    found = invoice_document(bill(made))
    assert sums(found) == [
        ("Subtotal", "0.0001079"),
        ("Prepaid credit applied", "-0.00002"),
        ("VAT 19 % on 0.000084", "0.00001596"),
        ("VAT 16 % on 0.0000028", "0.000000448"),
        ("Rounding", "-0.000000308"),
        ("Total due (USD)", "0.000104"),
    ]
    assert "Prices hold the tax: GST 10 % in 0.0000011, USD 0.0000001." in found.notes


@pytest.mark.parametrize(("exemption", "words"), [("reverse_charge", "Reverse charge"), ("exempt", "Exempt from tax")])
def test_why_there_is_no_tax_is_said(exemption: str, words: str) -> None:
    found = invoice_document(bill(invoice(LINES, tax_exemption=exemption, tax_reason="DE123456789")))
    assert [note for note in found.notes if words in note and "DE123456789" in note]


def test_one_that_credit_paid_asks_for_nothing() -> None:
    found = invoice_document(bill(invoice(LINES, credit=104_500, state="paid")))
    assert (found.watermark, found.payment, sums(found)[-1]) == ("PAID", [], ("Total due (USD)", "0.00"))


def test_a_void_one_gives_its_reason() -> None:
    made = invoice(LINES, state="void", settlement=settlement("void", 104_500, "issued twice"))
    found = invoice_document(bill(made))
    assert (found.watermark, found.payment) == ("VOID", [])
    assert any("issued twice" in note for note in found.notes)


def test_what_the_operator_gave_up_is_still_owed() -> None:
    made = invoice(LINES, state="uncollectible", settlement=settlement("uncollectible", 104_500, "bankrupt"))
    found = invoice_document(bill(made))
    assert said(found)["Please pay"].startswith("USD 0.0001045")
    assert not any("bankrupt" in note for note in found.notes)


def test_who_stated_nothing_is_named_by_its_id() -> None:
    found = invoice_document(bill(invoice(LINES), seller=None, buyer=None))
    assert (found.seller.name, found.buyer.name) == ("tokenyard", ACME)
    assert "IBAN" not in said(found)


def test_the_same_bill_says_the_same() -> None:
    assert invoice_document(bill(invoice(LINES))) == invoice_document(bill(invoice(LINES)))
