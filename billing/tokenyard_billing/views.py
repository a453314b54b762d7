"""What the views and routes of all rooms share. Money is whole nano-dollars, with dollars as exact text beside it."""

from typing import Annotated

from fastapi import Query
from pydantic import AfterValidator, AliasPath, BaseModel, BeforeValidator, Field
from pydantic.fields import FieldInfo

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.money import InexactAmount, NanoDollars, from_dollars, to_dollars
from tokenyard.web.request_guard import NO_NUL
from tokenyard_billing.tables import PAYMENT_IDS

MONTH_PATTERN = "^2[0-9]{3}-(0[1-9]|1[0-2])$"
Month = Annotated[str | None, Query(pattern=MONTH_PATTERN, description="YYYY-MM")]
ListSize = Annotated[int, Query(ge=1, le=1000)]

Dollars = Annotated[str, BeforeValidator(to_dollars)]
"""Nano-dollars as exact text; stands beside the amount itself: `Annotated[Dollars, of("amount")]`."""


def _not_a_payments(key: str) -> str:
    if key.startswith(PAYMENT_IDS):
        raise ValueError(f"a key that begins with {PAYMENT_IDS} is that of a payment")
    return key


IdempotencyKey = Annotated[str, Field(min_length=1, max_length=128, pattern=NO_NUL), AfterValidator(_not_a_payments)]
"""What an operator names money by, which comes in once by each name; what a provider took has its payment's id."""


def of(*path: str) -> FieldInfo:
    """Make a field from another one, or from one inside another: `of("usage", "prompt_tokens")`."""
    info: FieldInfo = Field(validation_alias=AliasPath(*path))
    return info


class View(BaseModel, from_attributes=True):
    """Made of a stored value of the same fields: `model_validate`."""


def amount_of(dollars: str, field: str) -> NanoDollars:
    """Return the amount that a body's field states as text; one finer than a nano-dollar raises `InvalidRequest`."""
    try:
        return from_dollars(dollars)
    except InexactAmount as error:
        raise InvalidRequest(str(error), param=field) from error
