"""Invoices as the API shows them."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, field_validator, model_validator

from tokenyard.core.money import to_dollars
from tokenyard.web.pages import Identified
from tokenyard_billing.invoice_tables import BillingPeriod, CreditNote, Invoice
from tokenyard_billing.invoicing.store import OPEN, PAST_DUE, InvoiceState
from tokenyard_billing.pricing.prices import Unit, unit_of
from tokenyard_billing.taxes.terms import Exemption
from tokenyard_billing.taxes.views import OptionalName, Percent
from tokenyard_billing.views import Dollars, View, of


def _per_million(rate: int) -> str:
    return to_dollars(rate * 1_000_000)


class InvoiceLineView(View):
    """`quantity` x `rate` nano-dollars = `amount`; `unit` says what is counted. Only tokens have a rate a million.

    `kind`: input, cached_input, output, training, hosting, pinned_hosting or storage. `usage_period` is the period in
    which it was used: before the invoice's own it is late usage, told after that period was closed. Credit pays for
    lines in their order. `tax`, rounded half up to the nano-dollar, is that of `amount` - `credit_applied` by
    `tax_rate` millionths, and stands in it (`tax_inclusive`) or comes on top.
    """

    usage_period: str
    model: str
    price: str
    kind: str
    quantity: int
    rate: int
    amount: int
    credit_applied: int
    tax_name: str
    tax_rate: int
    tax_inclusive: bool
    tax: int

    unit: Annotated[Unit, BeforeValidator(unit_of), of("kind")]
    rate_dollars: Annotated[Dollars, of("rate")]
    rate_dollars_per_million: Annotated[str | None, BeforeValidator(_per_million), of("rate")]
    amount_dollars: Annotated[Dollars, of("amount")]
    tax_percent: Annotated[Percent, of("tax_rate")]
    tax_dollars: Annotated[Dollars, of("tax")]

    @model_validator(mode="after")
    def _without_millions_of_others(self) -> Self:
        if self.unit != "tokens":
            self.rate_dollars_per_million = None
        return self


class SettlementView(View):
    """How an open invoice ended: paid, void or uncollectible; `note` is the payment's reference or the reason."""

    state: str
    amount: int
    note: str
    actor: str
    transaction: str
    settled_at_ms: int


class InvoiceHead(View, Identified):
    """An invoice without its lines, as of `drafted_at_ms`.

    `amount_due` = `total` - `credit_applied` + `tax` - `tax_included` + `rounding`: prices hold `tax_included` already,
    and `rounding` makes whole cents of what is issued, half up. A draft is not rounded. `tax_exemption` and
    `tax_reason` are those of the period.

    `amount_remaining` is what is still to be paid of an open one: credit notes may have lowered it.
    A draft changes with each charge; then it is open, and one of past_due, paid, void and uncollectible. Its number
    and what comes after are null in a draft. The period is from `period_start_ms` until before `period_end_ms`.
    """

    object: Literal["invoice"] = "invoice"
    organization: str
    period: str
    time_zone: str
    period_start_ms: int
    period_end_ms: int
    state: InvoiceState
    currency: Literal["usd"] = "usd"
    total: int
    credit_applied: int
    tax: int
    tax_included: int
    rounding: int
    amount_due: int
    amount_remaining: int
    tax_jurisdiction: OptionalName
    tax_exemption: Exemption
    tax_reason: str
    drafted_at_ms: int
    total_dollars: Annotated[Dollars, of("total")]
    credit_applied_dollars: Annotated[Dollars, of("credit_applied")]
    tax_dollars: Annotated[Dollars, of("tax")]
    rounding_dollars: Annotated[Dollars, of("rounding")]
    amount_due_dollars: Annotated[Dollars, of("amount_due")]
    amount_remaining_dollars: Annotated[Dollars, of("amount_remaining")]
    number: str | None
    issuer: str | None
    issued_at_ms: int | None
    due_at_ms: int | None

    @classmethod
    def at(cls, invoice: Invoice, now_ms: int) -> Self:
        """Return `invoice` as it stands at a moment: an open one may be past due then."""
        shown = cls.model_validate(invoice)
        if shown.state == OPEN and (shown.due_at_ms or 0) <= now_ms:
            shown.state = PAST_DUE
        return shown


class InvoiceView(InvoiceHead):
    """A whole invoice; its lines sum to `total`."""

    lines: list[InvoiceLineView]
    settlement: SettlementView | None
    credit_notes: list[str]

    @field_validator("credit_notes", mode="before")
    @classmethod
    def _ids(cls, notes: Sequence[CreditNote]) -> list[str]:
        return sorted(note.id for note in notes if note.issued_at_ms is not None)


class PeriodView(View, Identified):
    """A period of which something was charged: open, closing from its end on, then closed. `id` is YYYY-MM."""

    id: Annotated[str, of("period")]
    object: Literal["billing_period"] = "billing_period"
    organization: str
    start_ms: int
    end_ms: int
    closed_at_ms: int | None
    state: Literal["open", "closing", "closed"] = "open"

    @classmethod
    def at(cls, period: BillingPeriod, now_ms: int) -> Self:
        """Return `period` as it stands at a moment."""
        shown = cls.model_validate(period)
        if shown.closed_at_ms is not None:
            shown.state = "closed"
        elif shown.end_ms <= now_ms:
            shown.state = "closing"
        return shown


class TimeZoneView(View):
    """`time_zone` is that of the period that runs now, `next_time_zone` that in which the one after it ends."""

    object: Literal["organization.time_zone"] = "organization.time_zone"
    organization: str
    time_zone: str
    period: str
    next_time_zone: str
    next_period: str
