"""Invoices as PDF: read back as a reader of PDF does."""

import asyncio
import io
import os
from itertools import count
from pathlib import Path

import psutil
import pytest
from pypdf import PdfReader

from support.billing.bills import BUYER, SELLER, bill, draft, invoice, line
from support.billing.stand import MODEL
from support.waiting import until
from tokenyard.core.errors import Unavailable
from tokenyard_billing.documents import typesetting
from tokenyard_billing.documents.document import Bill, invoice_document
from tokenyard_billing.documents.pdf import PdfWriter
from tokenyard_billing.invoice_tables import InvoiceLine

WRITER = PdfWriter()


def read(made: bytes) -> PdfReader:
    return PdfReader(io.BytesIO(made))


async def text_of(of: Bill) -> str:
    pages = read(await WRITER.write(invoice_document(of))).pages
    return " ".join(" ".join(page.extract_text() for page in pages).split())


def many(models: int) -> list[InvoiceLine]:
    numbers = count()
    return [
        line(next(numbers), kind, 1_000 + index, rate, model=f"ft:{MODEL}:acme:model-{index:04d}:0123456789abcdef")
        for index in range(models)
        for kind, rate in (("input", 151), ("cached_input", 37), ("output", 601))
    ]


async def test_a_reader_finds_all_that_the_document_says() -> None:
    made = bill(invoice([line(0), line(1, "output", 10, 400)], credit=4_500))
    found = await text_of(made)
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


async def test_a_draft_is_marked() -> None:
    assert "DRAFT" in await text_of(bill(draft([line(0)])))


async def test_it_is_dated_as_it_was_issued_and_names_its_issuer() -> None:
    found = read(await WRITER.write(invoice_document(bill(invoice([line(0)])))))
    assert found.metadata is not None
    assert (found.metadata.title, found.metadata.author) == ("Invoice INV-000007", SELLER.legal_name)
    assert found.metadata.creation_date is not None
    assert found.metadata.creation_date.strftime("%Y-%m-%d") == "2026-04-01"  # UTC
    assert all("/FontFile" in str(font) for font in _fonts(found))


async def test_the_same_invoice_is_the_same_bytes_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is made by a process of its own; the zone and the folder of the gateway do not tell."""
    document = invoice_document(bill(invoice([line(0)])))
    first = await WRITER.write(document)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.chdir(tmp_path)
    assert await PdfWriter().write(document) == first


async def test_one_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "typst.py").write_text("raise ImportError('no typst here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(Unavailable, match="no typst here"):
        await WRITER.write(invoice_document(bill(invoice([line(0)]))))


async def test_its_process_ends_with_who_waits_for_it() -> None:
    waiting = asyncio.create_task(WRITER.write(invoice_document(bill(invoice(many(1_000))))))

    async def begun() -> bool:
        return bool(_typesetters())

    await until(begun, "the process", limit_s=20)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not _typesetters()


def _typesetters() -> list[psutil.Process]:
    return [
        one
        for one in psutil.Process().children()
        if one.status() != psutil.STATUS_ZOMBIE and typesetting.__name__ in one.cmdline()
    ]


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
async def test_what_a_tenant_writes_is_never_markup(written: str) -> None:
    buyer = BUYER.model_copy(update={"legal_name": written, "address_line_1": written})
    assert " ".join(written.split()) in await text_of(bill(invoice([line(0, model=written)]), buyer=buyer))


@pytest.mark.parametrize("name", ["Müller & Söhne ÄÖÜß", "Łódź Żółć Sp. z o.o.", "Ελληνική Εταιρεία", "ООО «Ромашка»"])
async def test_european_names_are_whole(name: str) -> None:
    assert name in await text_of(bill(invoice([line(0)]), buyer=BUYER.model_copy(update={"legal_name": name})))


@pytest.mark.parametrize("name", ["株式会社トークン", "한국전력공사", "شركة", "खाता", "🚀 Rockets"])
async def test_a_name_that_no_font_here_has_does_not_fail(name: str) -> None:
    found = await text_of(bill(invoice([line(0)]), buyer=BUYER.model_copy(update={"legal_name": name})))
    assert "1 High Street" in found


async def test_words_that_are_too_long_break() -> None:
    long = "x" * 200
    buyer = BUYER.model_copy(update={"legal_name": long, "tax_id": long, "purchase_order": long})
    [page] = read(await WRITER.write(invoice_document(bill(invoice([line(0, model=long)]), buyer=buyer)))).pages
    assert page.extract_text().count("x") >= 4 * 200


async def test_three_thousand_lines_fit_into_memory_and_have_numbered_pages() -> None:
    made = invoice_document(bill(invoice(many(1_000))))
    writing = asyncio.create_task(WRITER.write(made))
    most = 0
    while not writing.done():
        most = max(most, *(one.memory_info().rss for one in _typesetters()), 0)
        await asyncio.sleep(0.02)
    pages = read(await writing).pages
    assert 2**20 < most < 2**30
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
