"""Invoices as HTML."""

import re
from html.parser import HTMLParser

from support.billing.bills import BUYER, SELLER, bill, draft, invoice, line, settlement
from tokenyard_billing.documents.document import Bill, invoice_document
from tokenyard_billing.documents.html_page import HtmlWriter

WRITER = HtmlWriter()
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">{{ 7 * 7 }}\'"&'


class Reader(HTMLParser):
    """Reads a page's tags and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def read(of: Bill) -> Reader:
    reader = Reader()
    reader.feed(WRITER.write(invoice_document(of)).decode())
    return reader


def test_the_page_says_all_that_the_document_says() -> None:
    made = bill(invoice([line(0), line(1, "output", 10, 400)], credit=4_500))
    document, found = invoice_document(made), read(made).text
    for fact in (*document.facts, *document.payment):
        assert f"{fact.label} {fact.text}" in found
    for row in document.sums:
        assert f"{row.label} {row.amount.text}" in found
    assert "PAID" not in found
    assert "Thank you." in found


def test_states_are_marked() -> None:
    assert "DRAFT" in read(bill(draft([line(0)]))).text
    paid = invoice([line(0)], state="paid", settlement=settlement("paid", 100_000))
    assert "PAID" in read(bill(paid)).text


def test_whatever_anyone_writes_is_text() -> None:
    buyer = BUYER.model_copy(update={"legal_name": HOSTILE, "purchase_order": HOSTILE})
    seller = SELLER.model_copy(update={"legal_name": HOSTILE, "payment_terms": HOSTILE})
    void = invoice([line(0, model=HOSTILE)], state="void", settlement=settlement("void", 100_000, HOSTILE))
    found = read(bill(void, seller=seller, buyer=buyer))
    assert not {"script", "img"} & {tag for tag, _ in found.tags}
    assert "<script>alert(1)</script>" in found.text
    assert "{{ 7 * 7 }}" in found.text


def test_the_page_needs_nothing_beside_it() -> None:
    content = WRITER.write(invoice_document(bill(invoice([line(0)])))).decode()
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img|\bsrc=|\bhref=", content)


def test_the_same_invoice_is_the_same_bytes() -> None:
    first, second = (WRITER.write(invoice_document(bill(invoice([line(0)])))) for _ in range(2))
    assert first == second
