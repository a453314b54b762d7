"""Balances and credit as the API shows them."""

from typing import Annotated, Literal

from tokenyard.web.pages import Identified
from tokenyard_billing.views import Dollars, View, of


class BalanceView(View, Identified):
    """What an organization has left, below 0 what it owes, and what is set aside for jobs; `id` is its own id."""

    id: Annotated[str, of("organization")]
    object: Literal["balance"] = "balance"
    currency: Literal["usd"] = "usd"
    available: int
    available_dollars: Annotated[Dollars, of("available")]
    reserved: int
    reserved_dollars: Annotated[Dollars, of("reserved")]


class GrantView(View, Identified):
    """A credit grant; `id` is that of its journal transaction."""

    id: Annotated[str, of("transaction")]
    object: Literal["credit_grant"] = "credit_grant"
    organization: str
    idempotency_key: str
    amount: int
    reason: str
    actor: str
    transaction: str
    granted_at_ms: int
    amount_dollars: Annotated[Dollars, of("amount")]
