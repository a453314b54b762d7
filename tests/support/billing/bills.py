"""Bills made to order, without SQL: what documents are made of."""

from collections.abc import Sequence
from typing import Any

from support.billing.stand import ACME, MODEL, PRICE
from tokenyard_billing.documents.document import Bill
from tokenyard_billing.invoice_tables import CreditNote, Invoice, InvoiceLine, Settlement
from tokenyard_billing.parties.party import Buyer, Seller
from tokenyard_billing.parties.snapshots import Parties
from tokenyard_billing.periods import DAY_MS, period_end_ms, period_start_ms

ZONE = "Europe/Berlin"
START_MS, END_MS = period_start_ms("2026-03", ZONE), period_end_ms("2026-03", ZONE)
ISSUED_MS = END_MS + DAY_MS
SELLER = Seller(
    legal_name="Tokenhof GmbH",
    address_line_1="Straße des 17. Juni 135",
    city="Berlin",
    postal_code="10623",
    country="DE",
    tax_id="DE123456789",
    registration_number="HRB 12345 B",
    email="billing@tokenhof.example",
    iban="DE89 3704 0044 0532 0130 00",
    bic="COBADEFFXXX",
    bank_name="Commerzbank",
    payment_terms="Payable without deduction.\nThank you.",
)
BUYER = Buyer(
    legal_name="Acme Widgets Ltd",
    address_line_1="1 High Street",
    address_line_2="Floor 2",
    city="Leeds",
    postal_code="LS1 1AA",
    country="GB",
    tax_id="GB999999973",
    buyer_reference="Cost centre 42",
    purchase_order="PO-2026-7",
    electronic_address="5060012345675",
    electronic_address_scheme="0088",
)


def line(
    number: int, kind: str = "input", quantity: int = 1_000, rate: int = 100, *, period: str = "2026-03", **own: Any
) -> InvoiceLine:
    amount = quantity * rate
    untaxed = {"credit_applied": 0, "tax_name": "", "tax_rate": 0, "tax_inclusive": False, "tax": 0}
    named = {"model": MODEL, "price": PRICE} | untaxed | own
    return InvoiceLine(
        number=number, usage_period=period, kind=kind, quantity=quantity, rate=rate, amount=amount, **named
    )


def invoice(
    lines: Sequence[InvoiceLine],
    *,
    credit: int = 0,
    settlement: Settlement | None = None,
    notes: Sequence[CreditNote] = (),
    **changes: Any,
) -> Invoice:
    """Return the issued invoice of March; `changes` are of its columns."""
    total = sum(one.amount for one in lines)
    columns = {
        "id": "inv_acme_2026-03",
        "organization": ACME,
        "period": "2026-03",
        "time_zone": ZONE,
        "period_start_ms": START_MS,
        "period_end_ms": END_MS,
        "state": "open",
        "total": total,
        "credit_applied": credit,
        "tax": 0,
        "tax_included": 0,
        "rounding": 0,
        "tax_jurisdiction": "",
        "tax_exemption": "none",
        "tax_reason": "",
        "amount_due": total - credit,
        "drafted_at_ms": ISSUED_MS,
        "issuer": "tokenyard",
        "sequence": 7,
        "number": "INV-000007",
        "issued_at_ms": ISSUED_MS,
        "due_at_ms": ISSUED_MS + 30 * DAY_MS,
    }
    return Invoice(**(columns | changes), lines=list(lines), settlement=settlement, credit_notes=list(notes))


def draft(lines: Sequence[InvoiceLine]) -> Invoice:
    return invoice(lines, state="draft", issuer=None, sequence=None, number=None, issued_at_ms=None, due_at_ms=None)


def settlement(state: str, amount: int, note: str = "bank 17") -> Settlement:
    return Settlement(
        invoice="inv_acme_2026-03", state=state, amount=amount, note=note, settled_at_ms=ISSUED_MS + 5 * DAY_MS
    )


def bill(of: Invoice, *, seller: Seller | None = SELLER, buyer: Buyer | None = BUYER) -> Bill:
    return Bill(of, Parties(seller, buyer), "tokenyard")
