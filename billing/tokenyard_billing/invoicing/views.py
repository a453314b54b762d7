"""Invoices as the API shows them."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from tokenyard.core.money import to_dollars
from tokenyard.web.pages import Identified
from tokenyard_billing.pricing.prices import unit_of
from tokenyard_billing.views import Dollars, View, of


def _per_million(rate: int) -> str:
    return to_dollars(rate * 1_000_000)


class InvoiceLineView(View):
    """`quantity` x `rate` nano-dollars = `amount`; `unit` says what is counted. Only tokens have a rate a million.

    `kind`: input, cached_input, output, training, hosting, pinned_hosting or storage.
    """

    model: str
    price: str
    kind: str
    quantity: int
    rate: int
    amount: int

    unit: Annotated[Literal["tokens", "hours"], BeforeValidator(unit_of), of("kind")]
    rate_dollars: Annotated[Dollars, of("rate")]
    rate_dollars_per_million: Annotated[str | None, BeforeValidator(_per_million), of("rate")]
    amount_dollars: Annotated[Dollars, of("amount")]

    @model_validator(mode="after")
    def _without_millions_of_hours(self) -> Self:
        if self.unit == "hours":
            self.rate_dollars_per_million = None
        return self


class InvoiceHead(View, Identified):
    """An invoice without its lines. `total` = `credit_applied` + `amount_due`, as of `drafted_at_ms`."""

    object: Literal["invoice"] = "invoice"
    organization: str
    period: str
    time_zone: str
    state: str
    currency: Literal["usd"] = "usd"
    total: int
    credit_applied: int
    amount_due: int
    drafted_at_ms: int
    total_dollars: Annotated[Dollars, of("total")]
    credit_applied_dollars: Annotated[Dollars, of("credit_applied")]
    amount_due_dollars: Annotated[Dollars, of("amount_due")]


class InvoiceView(InvoiceHead):
    """A whole invoice; its lines sum to `total`."""

    lines: list[InvoiceLineView]
