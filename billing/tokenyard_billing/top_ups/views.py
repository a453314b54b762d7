"""Top-ups as the API takes and shows them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tokenyard.web.pages import Identified
from tokenyard.web.request_guard import NO_NUL
from tokenyard_billing.top_ups.buying import PayBy
from tokenyard_billing.views import Dollars, View, of

WholeCents = Annotated[str, Field(max_length=32, description="Dollars in whole cents, such as 20.")]


class TopUpBody(BaseModel, extra="forbid", coerce_numbers_to_str=True):
    """`by` says where it is paid. With the same `idempotency_key` it is bought once."""

    amount_dollars: WholeCents
    by: PayBy = PayBy.CHECKOUT
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=100, pattern=NO_NUL)


class AutomaticTopUpBody(BaseModel, extra="forbid", coerce_numbers_to_str=True):
    """`amount_dollars` are bought whenever less than `threshold_dollars` are left, in a UTC month up to the limit."""

    threshold_dollars: WholeCents
    amount_dollars: WholeCents
    month_limit_dollars: WholeCents


class AutomaticTopUpView(View, Identified):
    """What is bought by itself. `failure_code` is why no more is, until it, or the method, is changed; or empty."""

    id: Annotated[str, of("organization")]
    object: Literal["automatic_top_up"] = "automatic_top_up"
    organization: str
    threshold: int
    threshold_dollars: Annotated[Dollars, of("threshold")]
    amount: int
    amount_dollars: Annotated[Dollars, of("amount")]
    month_limit: int
    month_limit_dollars: Annotated[Dollars, of("month_limit")]
    failure_code: str
    changed_at_ms: int


class DeletedAutomaticTopUpView(BaseModel):
    """`id` is the organization's."""

    id: str
    object: Literal["automatic_top_up.deleted"] = "automatic_top_up.deleted"
    deleted: Literal[True] = True
