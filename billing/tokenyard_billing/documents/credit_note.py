"""What a credit note's document says. Pure, without I/O."""

import msgspec

from tokenyard.core.ids import OrganizationId
from tokenyard_billing.documents.document import (
    CURRENCY,
    BillDocument,
    Fact,
    SumRow,
    exactness,
    periods_of,
    sum_rows,
    taxes_of,
)
from tokenyard_billing.documents.party_text import buyer_text, seller_text
from tokenyard_billing.documents.wording import day_text, month_text
from tokenyard_billing.invoice_tables import CreditNote, Invoice
from tokenyard_billing.parties.snapshots import Parties


class CreditNoteBill(msgspec.Struct, frozen=True):
    """An issued credit note with its lines, the invoice that it lowers, and the parties it is between."""

    note: CreditNote
    invoice: Invoice
    parties: Parties

    @property
    def organization(self) -> OrganizationId:
        return OrganizationId(self.note.organization)

    @property
    def name(self) -> str:
        return self.note.number or self.note.id

    def document(self) -> BillDocument:
        return credit_note_document(self)


def credit_note_document(bill: CreditNoteBill) -> BillDocument:
    """Say all that `bill` states; the same bill gives the same document at any time."""
    note, invoice, parties = bill.note, bill.invoice, bill.parties
    issued_ms = note.issued_at_ms or 0
    return BillDocument(
        title="Credit note",
        name=bill.name,
        watermark="",
        dated_s=issued_ms // 1000,
        seller=seller_text(parties.seller, note.issuer or ""),
        buyer=buyer_text(parties.buyer, note.organization),
        facts=[
            Fact("Credit note number", bill.name),
            Fact("Date of issue", day_text(issued_ms, invoice.time_zone)),
            Fact("Invoice", f"{invoice.number} of {month_text(invoice.period)}"),
            Fact("Time zone", invoice.time_zone),
            Fact("Customer number", note.organization),
            Fact("Currency", CURRENCY),
        ],
        periods=periods_of(note.lines),
        sums=_sums(note, invoice),
        payment=[],
        payment_terms="",
        notes=[f"Reason: {note.reason}", *exactness(note.lines)],
    )


def _sums(note: CreditNote, invoice: Invoice) -> list[SumRow]:
    """Return what is taken back, and how it is made good."""
    amounts = [("Subtotal", note.total)]
    amounts += [(tax.label, tax.amount) for tax in taxes_of(note.lines) if not tax.inclusive and note.lowered]
    if note.rounding:
        amounts.append(("Rounding", note.rounding))
    amounts.append((f"Total credited ({CURRENCY})", note.due_lowered + note.credited))
    strong = len(amounts) - 1
    if note.due_lowered:
        amounts.append((f"Less to be paid of {invoice.number}", note.due_lowered))
    if note.credited:
        amounts.append(("Added to your credit", note.credited))
    return sum_rows(amounts, strong)
