"""What the views and routes of all rooms share. Money is whole nano-dollars, with dollars as exact text beside it."""

from typing import Annotated

from fastapi import Query
from pydantic import AliasPath, BaseModel, BeforeValidator, Field
from pydantic.fields import FieldInfo

from tokenyard.core.money import to_dollars

MONTH_PATTERN = "^2[0-9]{3}-(0[1-9]|1[0-2])$"
Month = Annotated[str | None, Query(pattern=MONTH_PATTERN, description="YYYY-MM")]
ListSize = Annotated[int, Query(ge=1, le=1000)]

Dollars = Annotated[str, BeforeValidator(to_dollars)]
"""Nano-dollars as exact text; stands beside the amount itself: `Annotated[Dollars, of("amount")]`."""


def of(*path: str) -> FieldInfo:
    """Make a field from another one, or from one inside another: `of("usage", "prompt_tokens")`."""
    info: FieldInfo = Field(validation_alias=AliasPath(*path))
    return info


class View(BaseModel, from_attributes=True):
    """Made of a stored value of the same fields: `model_validate`."""
