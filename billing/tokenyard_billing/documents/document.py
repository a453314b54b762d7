"""What an invoice's document says: every word of it, so that PDF and HTML cannot disagree. Pure, without I/O.

What it shares with a credit note's is here, too.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import Millionths, percent_text
from tokenyard_billing.documents.party_text import PartyText, buyer_text, iban_text, seller_text
from tokenyard_billing.documents.wording import (
    day_text,
    decimals,
    kind_text,
    money,
    month_text,
    quantity_text,
    rate_text,
    span_text,
)
from tokenyard_billing.invoice_tables import DocumentLine, Invoice, Settlement
from tokenyard_billing.parties.snapshots import Parties

CURRENCY = "USD"
_WATERMARKS = {"draft": "DRAFT", "paid": "PAID", "void": "VOID"}


class Bill(msgspec.Struct, frozen=True):
    """An invoice with its lines, its settlement and its credit notes, and the parties it is between."""

    invoice: Invoice
    parties: Parties
    issuer: str

    @property
    def organization(self) -> OrganizationId:
        return OrganizationId(self.invoice.organization)

    @property
    def name(self) -> str:
        return self.invoice.number or self.invoice.id

    def document(self) -> "BillDocument":
        return invoice_document(self)


class Fact(msgspec.Struct, frozen=True):
    label: str
    text: str


class Amount(msgspec.Struct, frozen=True):
    """`padding` is how many decimals it has fewer than others of its column, so that points stand below each other."""

    text: str
    padding: int = 0


class LineText(msgspec.Struct, frozen=True):
    what: str
    quantity: str
    rate: str
    amount: Amount


class ModelLines(msgspec.Struct, frozen=True):
    """What was used of one model; `amount` is the sum of the lines."""

    model: str
    amount: Amount
    lines: Sequence[LineText]


class PeriodLines(msgspec.Struct, frozen=True):
    """What was used in one period; `note` says why it is on an invoice of a later one."""

    title: str
    note: str
    amount: Amount
    models: Sequence[ModelLines]


class SumRow(msgspec.Struct, frozen=True):
    label: str
    amount: Amount
    strong: bool = False


class BillDocument(msgspec.Struct, frozen=True):
    """`dated_s` (unix seconds) is when it was issued, or drafted; `name` is its number, or a draft's id.

    It is of an invoice or of a credit note.
    """

    title: str
    name: str
    watermark: str
    dated_s: int
    seller: PartyText
    buyer: PartyText
    facts: Sequence[Fact]
    periods: Sequence[PeriodLines]
    sums: Sequence[SumRow]
    payment: Sequence[Fact]
    payment_terms: str
    notes: Sequence[str]
    currency: str = CURRENCY


def invoice_document(bill: Bill) -> BillDocument:
    """Say all that `bill` states; the same bill gives the same document at any time."""
    invoice, parties = bill.invoice, bill.parties
    dated_ms = invoice.drafted_at_ms if invoice.issued_at_ms is None else invoice.issued_at_ms
    payable = invoice.state in ("open", "uncollectible") and invoice.amount_claimed > 0
    return BillDocument(
        title="Draft invoice" if invoice.state == "draft" else "Invoice",
        name=bill.name,
        watermark=_WATERMARKS.get(invoice.state, ""),
        dated_s=dated_ms // 1000,
        seller=seller_text(parties.seller, bill.issuer),
        buyer=buyer_text(parties.buyer, invoice.organization),
        facts=list(_facts(bill)),
        periods=periods_of(invoice.lines, late_before=invoice.period),
        sums=_sums(invoice),
        payment=list(_payment(bill)) if payable else [],
        payment_terms=parties.seller.payment_terms if payable and parties.seller else "",
        notes=list(_notes(invoice)),
    )


def _facts(bill: Bill) -> Iterator[Fact]:
    invoice, zone = bill.invoice, bill.invoice.time_zone
    if invoice.number is not None:
        yield Fact("Invoice number", invoice.number)
    if invoice.issued_at_ms is not None:
        yield Fact("Date of issue", day_text(invoice.issued_at_ms, zone))
    if invoice.due_at_ms is not None:
        yield Fact("Due date", day_text(invoice.due_at_ms, zone))
    yield Fact("Service period", span_text(invoice.period_start_ms, invoice.period_end_ms, zone))
    yield Fact("Time zone", zone)
    yield Fact("Customer number", invoice.organization)
    if buyer := bill.parties.buyer:
        stated = (("Your reference", buyer.buyer_reference), ("Purchase order", buyer.purchase_order))
        yield from (Fact(label, text) for label, text in stated if text)
    yield Fact("Currency", CURRENCY)


def periods_of(lines: Sequence[DocumentLine], *, late_before: str = "") -> list[PeriodLines]:
    """Return the lines by period of use, in their order; what was used before the period `late_before` is late."""
    places = max((decimals(money(line.amount)) for line in lines), default=2)
    return [
        _period(period, list(own), places, late=period < late_before)
        for period, own in groupby(lines, key=lambda line: line.usage_period)
    ]


def _period(period: str, lines: Sequence[DocumentLine], places: int, *, late: bool) -> PeriodLines:
    note = "Late usage: it was told after that period had been closed. Prices are those of its own date."
    models = [_model(model, list(own), places) for model, own in groupby(lines, key=lambda line: line.model)]
    total = sum(line.amount for line in lines)
    return PeriodLines(f"Usage in {month_text(period)}", note if late else "", _amount(total, places), models)


def _model(model: str, lines: Sequence[DocumentLine], places: int) -> ModelLines:
    rows = [
        LineText(
            kind_text(line.kind, line.price),
            quantity_text(line.kind, line.quantity),
            rate_text(line.kind, line.rate),
            _amount(line.amount, places),
        )
        for line in lines
    ]
    return ModelLines(model, _amount(sum(line.amount for line in lines), places), rows)


def _sums(invoice: Invoice) -> list[SumRow]:
    """Return how the lines come to what is due."""
    amounts = [("Subtotal", invoice.total)]
    if invoice.credit_applied:
        amounts.append(("Prepaid credit applied", -invoice.credit_applied))
    amounts += [(tax.label, tax.amount) for tax in taxes_of(invoice.lines) if not tax.inclusive]
    if invoice.rounding:
        amounts.append(("Rounding", invoice.rounding))
    amounts.append((f"Total due ({CURRENCY})", invoice.amount_due))
    strong = len(amounts) - 1
    claimed = invoice.amount_claimed
    if claimed != invoice.amount_due:
        amounts.append(("Taken back by credit notes", claimed - invoice.amount_due))
    if (settlement := invoice.settlement) and settlement.state == "paid":
        amounts.append((f"Paid on {day_text(settlement.settled_at_ms, invoice.time_zone)}", -settlement.amount))
        claimed -= settlement.amount
    if len(amounts) > strong + 1:
        amounts.append((f"Outstanding ({CURRENCY})", claimed))
    return sum_rows(amounts, strong)


def sum_rows(amounts: Sequence[tuple[str, int]], strong: int) -> list[SumRow]:
    """Return rows of sums, of which the one at `strong` is what the document comes to."""
    places = max(decimals(money(amount)) for _, amount in amounts)
    return [
        SumRow(label, _amount(amount, places), strong=index == strong) for index, (label, amount) in enumerate(amounts)
    ]


class TaxSum(msgspec.Struct, frozen=True):
    """What one rate comes to; `label` says of how much, too."""

    label: str
    amount: int
    inclusive: bool


def taxes_of(lines: Sequence[DocumentLine]) -> list[TaxSum]:
    """Return the taxes of a document by their rates, in the order of its lines."""
    sums: dict[tuple[str, int, bool], list[int]] = {}
    for line in lines:
        if line.tax_name:
            found = sums.setdefault((line.tax_name, line.tax_rate, line.tax_inclusive), [0, 0])
            found[0] += line.amount - line.credit_applied
            found[1] += line.tax
    return [
        TaxSum(f"{name} {percent_text(Millionths(rate))} % {'in' if inclusive else 'on'} {money(base)}", tax, inclusive)
        for (name, rate, inclusive), (base, tax) in sums.items()
    ]


def _payment(bill: Bill) -> Iterator[Fact]:
    invoice, seller = bill.invoice, bill.parties.seller
    due = "" if invoice.due_at_ms is None else f" by {day_text(invoice.due_at_ms, invoice.time_zone)}"
    yield Fact("Please pay", f"{CURRENCY} {money(invoice.amount_claimed)}{due}")
    if seller is not None and seller.iban:
        yield Fact("Account holder", seller.account_name or seller.legal_name)
        yield Fact("IBAN", iban_text(seller.iban))
    if seller is not None:
        stated = (("BIC", seller.bic), ("Bank", seller.bank_name))
        yield from (Fact(label, text) for label, text in stated if text)
    yield Fact("Reference", bill.name)


def _notes(invoice: Invoice) -> Iterator[str]:
    if invoice.state == "draft":
        yield "This is a draft: it changes with usage and is not to be paid."
    if invoice.state == "paid" and not invoice.amount_due:
        yield "Nothing is to be paid."
    if invoice.settlement is not None:
        yield from _settled(invoice.settlement)
    yield from exactness(invoice.lines)
    if invoice.tax_exemption == "reverse_charge":
        yield f"Reverse charge: the recipient owes the tax. {invoice.tax_reason}"
    if invoice.tax_exemption == "exempt":
        yield f"Exempt from tax: {invoice.tax_reason}"


def exactness(lines: Sequence[DocumentLine]) -> Iterator[str]:
    """Say which taxes prices hold, and what is rounded."""
    for tax in taxes_of(lines):
        if tax.inclusive:
            yield f"Prices hold the tax: {tax.label}, {CURRENCY} {money(tax.amount)}."
    yield (
        f"All amounts are in US dollars ({CURRENCY}). Lines are exact; the tax of each is rounded to nine decimals,"
        " and the total to cents."
    )


def _settled(settlement: Settlement) -> Iterator[str]:
    if settlement.state == "paid":
        yield f"Paid in full. Reference of the payment: {settlement.note}"
    if settlement.state == "void":
        yield f"This invoice is void: nothing is to be paid by it. Reason: {settlement.note}"


def _amount(amount: int, places: int) -> Amount:
    text = money(amount)
    return Amount(text, max(places - decimals(text), 0))
