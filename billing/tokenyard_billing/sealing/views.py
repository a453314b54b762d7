"""Seals as the API shows them."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel

from tokenyard.web.pages import Identified
from tokenyard_billing.sealing.recomputing import BrokenSeal
from tokenyard_billing.views import View, of

DAY_PATTERN = "^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
Day = Annotated[str | None, Query(pattern=DAY_PATTERN, description="A UTC day, YYYY-MM-DD")]


class SealView(View, Identified):
    """The seal of a UTC day: write `hash` down, and no later change of that day or of one before it can be hidden.

    `id` is the day.
    """

    id: Annotated[str, of("day")]
    object: Literal["seal"] = "seal"
    day: str
    hash: str


class WholeSealView(SealView):
    """`root` is the Merkle root over `organizations` parts, `previous` the hash of the day before."""

    previous: str
    root: str
    organizations: int
    sealed_at_ms: int


class SealDifferenceView(View):
    """`organization` is null where the seal itself is wrong."""

    name: BrokenSeal
    day: str
    organization: str | None
    detail: str


class SealVerificationView(BaseModel, from_attributes=True):
    """So many days, and rows of them, were made anew up to the day `through`; days behind it may be left (`more`)."""

    object: Literal["seal.verification"] = "seal.verification"
    days: int
    rows: int
    through: str | None
    more: bool
    difference: SealDifferenceView | None
