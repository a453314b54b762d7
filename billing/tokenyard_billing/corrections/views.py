"""Corrections and credit notes as the API shows them."""

from typing import Annotated, Literal, Self

import msgspec
from pydantic import BeforeValidator

from tokenyard.web.pages import Identified
from tokenyard_billing.corrections.selection import Preview, Scope
from tokenyard_billing.invoicing.views import InvoiceLineView
from tokenyard_billing.views import Dollars, View, of


def _state(applied_at_ms: int | None) -> str:
    return "pending" if applied_at_ms is None else "applied"


class ScopeView(View):
    """Which charges: those that meet all that is said."""

    request: str | None
    period: str | None
    since_ms: int | None
    until_ms: int | None
    model: str | None
    project: str | None
    key: str | None


def _scope(stored: str) -> Scope:
    return msgspec.json.decode(stored, type=Scope)


class CorrectionView(View, Identified):
    """A correction, and what it has done so far: `lowered` and `raised` are what charges cost less and more by it.

    `card` is the rate card by which they were rated anew; null: they were reversed.
    """

    object: Literal["correction"] = "correction"
    organization: str
    state: Annotated[Literal["pending", "applied"], BeforeValidator(_state), of("applied_at_ms")]
    scope: Annotated[ScopeView, BeforeValidator(_scope)]
    card: str | None
    reason: str
    actor: str
    requested_at_ms: int
    applied_at_ms: int | None
    charges: int
    lowered: int
    raised: int
    lowered_dollars: Annotated[Dollars, of("lowered")]
    raised_dollars: Annotated[Dollars, of("raised")]


class AffectedView(View):
    """The charges of one line of a bill, what they cost, and what of it would be taken back or added.

    Where the invoice was issued, what is taken back goes on a credit note of it, and
    what is added is billed in the first period that is not closed; else its draft changes.
    """

    billed_in: str
    usage_period: str
    model: str
    price: str
    charges: int
    amount: int
    lowered: int
    raised: int
    amount_dollars: Annotated[Dollars, of("amount")]
    lowered_dollars: Annotated[Dollars, of("lowered")]
    raised_dollars: Annotated[Dollars, of("raised")]
    invoice_issued: bool = False


class PreviewView(View):
    """What a correction would change; nothing is changed by looking."""

    object: Literal["correction.preview"] = "correction.preview"
    charges: int
    lowered: int
    raised: int
    lowered_dollars: Annotated[Dollars, of("lowered")]
    raised_dollars: Annotated[Dollars, of("raised")]
    lines: list[AffectedView]

    @classmethod
    def of_preview(cls, preview: Preview) -> Self:
        lines = [AffectedView.model_validate(line) for line in preview.lines]
        for line in lines:
            line.invoice_issued = line.billed_in <= preview.closed_through
        sums = {name: sum(getattr(line, name) for line in lines) for name in ("charges", "lowered", "raised")}
        return cls.model_validate({**sums, "lines": lines}, from_attributes=False)


class CreditNoteView(View, Identified):
    """What a correction took back of an issued invoice. `total` = `lowered` + `credited`.

    `lowered` is what the invoice claims less; `credited` had been paid, and is credit again. A line below 0 is what is
    billed instead of what is taken back.
    """

    object: Literal["credit_note"] = "credit_note"
    organization: str
    number: str
    issuer: str
    invoice: str
    correction: str
    reason: str
    currency: Literal["usd"] = "usd"
    issued_at_ms: int
    total: int
    lowered: int
    credited: int
    total_dollars: Annotated[Dollars, of("total")]
    lowered_dollars: Annotated[Dollars, of("lowered")]
    credited_dollars: Annotated[Dollars, of("credited")]
    lines: list[InvoiceLineView]
