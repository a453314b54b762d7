"""Invoices as PDF: read back as a reader of PDF does."""

import io
import subprocess
import sys
import time
from itertools import count

import pytest
from pypdf import PdfReader

from support.billing.bills import BUYER, SELLER, bill, draft, invoice, line
from support.billing.stand import MODEL
from tokenyard_billing.documents.document import Bill, invoice_document
from tokenyard_billing.documents.pdf import PdfWriter
from tokenyard_billing.invoice_tables import InvoiceLine

WRITER = PdfWriter()


def read(made: bytes) -> PdfReader:
    return PdfReader(io.BytesIO(made))


def text_of(of: Bill) -> str:
    pages = read(WRITER.write(invoice_document(of))).pages
    return " ".join(" ".join(page.extract_text() for page in pages).split())


def many(models: int) -> list[InvoiceLine]:
    numbers = count()
    return [
        line(next(numbers), kind, 1_000 + index, rate, model=f"ft:{MODEL}:acme:model-{index:04d}:0123456789abcdef")
        for index in range(models)
        for kind, rate in (("input", 151), ("cached_input", 37), ("output", 601))
    ]


def test_a_reader_finds_all_that_the_document_says() -> None:
    made = bill(invoice([line(0), line(1, "output", 10, 400)], credit=4_500))
    found = text_of(made)
    document = invoice_document(made)
    facts = (*document.facts, *document.payment)
    for words in (
        *(document.title, document.name, document.seller.name, document.buyer.name, *document.buyer.lines),
        *(fact.text for fact in facts),
        *(row.amount.text for row in document.sums),
        *("Usage in March 2026", MODEL, "Input tokens", "0.10 / 1M tokens", "Payable without deduction. Thank you."),
    ):
        assert words in found, words
    assert "Page 1 of 1" in found


def test_a_draft_is_marked() -> None:
    assert "DRAFT" in text_of(bill(draft([line(0)])))


def test_it_is_dated_as_it_was_issued_and_names_its_issuer() -> None:
    found = read(WRITER.write(invoice_document(bill(invoice([line(0)])))))
    assert found.metadata is not None
    assert (found.metadata.title, found.metadata.author) == ("Invoice INV-000007", SELLER.legal_name)
    assert found.metadata.creation_date is not None
    assert found.metadata.creation_date.strftime("%Y-%m-%d") == "2026-04-01"  # UTC
    assert all("/FontFile" in str(font) for font in _fonts(found))


def test_the_same_invoice_is_the_same_bytes_in_another_process() -> None:
    program = (
        "import hashlib\n"
        "from support.billing.bills import bill, invoice, line\n"
        "from tokenyard_billing.documents.document import invoice_document\n"
        "from tokenyard_billing.documents.pdf import PdfWriter\n"
        "made = PdfWriter().write(invoice_document(bill(invoice([line(0)]))))\n"
        "print(hashlib.sha256(made).hexdigest())\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
        for environment in _environments()
    ]
    assert len({run.stdout for run in runs}) == 1


def _environments() -> list[dict[str, str]]:
    base = {"PYTHONPATH": ":".join(sys.path)}
    return [{**base, "TZ": "UTC", "PYTHONHASHSEED": "1"}, {**base, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2"}]


@pytest.mark.parametrize(
    "written",
    [
        '#panic("in")',
        '#read("/etc/passwd") $x^2$ *bold* _it_ = head',
        '"; #import "@preview/x:0.1.0" //',
        "\\u{41} ~ -- --- ... <label> @ref `raw` [x] (y) {z}",
        "</script><b>&amp;",
    ],
)
def test_what_a_tenant_writes_is_never_markup(written: str) -> None:
    buyer = BUYER.model_copy(update={"legal_name": written, "address_line_1": written})
    assert " ".join(written.split()) in text_of(bill(invoice([line(0, model=written)]), buyer=buyer))


@pytest.mark.parametrize("name", ["Müller & Söhne ÄÖÜß", "Łódź Żółć Sp. z o.o.", "Ελληνική Εταιρεία", "ООО «Ромашка»"])
def test_european_names_are_whole(name: str) -> None:
    assert name in text_of(bill(invoice([line(0)]), buyer=BUYER.model_copy(update={"legal_name": name})))


@pytest.mark.parametrize("name", ["株式会社トークン", "한국전력공사", "شركة", "खाता", "🚀 Rockets"])
def test_a_name_that_no_font_here_has_does_not_fail(name: str) -> None:
    found = text_of(bill(invoice([line(0)]), buyer=BUYER.model_copy(update={"legal_name": name})))
    assert "1 High Street" in found


def test_words_that_are_too_long_break() -> None:
    long = "x" * 200
    buyer = BUYER.model_copy(update={"legal_name": long, "tax_id": long, "purchase_order": long})
    [page] = read(WRITER.write(invoice_document(bill(invoice([line(0, model=long)]), buyer=buyer)))).pages
    assert page.extract_text().count("x") >= 4 * 200


def test_three_thousand_lines_take_seconds_and_have_numbered_pages() -> None:
    made = invoice_document(bill(invoice(many(1_000))))
    started = time.monotonic()
    content = WRITER.write(made)
    took_s = time.monotonic() - started
    pages = read(content).pages
    assert took_s < 20, f"{took_s:.1f} s"  # it is one or two on a machine that does nothing else
    assert len(pages) > 50
    for number in (0, len(pages) // 2, len(pages) - 1):
        assert f"Page {number + 1} of {len(pages)}" in " ".join(pages[number].extract_text().split())
    middle = pages[len(pages) // 2].extract_text()
    assert "Invoice INV-000007" in middle
    assert "Description" in middle


def _fonts(found: PdfReader) -> list[object]:
    resources = found.pages[0]["/Resources"].get_object()
    fonts = resources["/Font"].get_object()  # type: ignore[index]
    return [
        font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"].get_object() for font in fonts.values()
    ]
