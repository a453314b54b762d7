"""Invoices as the API shows them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from tokenyard.core.money import to_dollars
from tokenyard.web.pages import Identified
from tokenyard_billing.views import Dollars, View, of


def _per_million(rate: int) -> str:
    return to_dollars(rate * 1_000_000)


class InvoiceLineView(View):
    """`quantity` tokens x `rate` nano-dollars = `amount`. `kind`: input, cached_input, output or training."""

    model: str
    price: str
    kind: str
    quantity: int
    rate: int
    amount: int

    rate_dollars_per_million: Annotated[str, BeforeValidator(_per_million), of("rate")]
    amount_dollars: Annotated[Dollars, of("amount")]


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
