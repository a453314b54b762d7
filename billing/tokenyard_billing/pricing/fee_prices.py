"""Prices of plans' fees: each is of one part of a month, and its id says all of it. Pure, without I/O."""

import re
from typing import Literal

import msgspec

from tokenyard.core.ids import PriceId
from tokenyard.core.money import NanoDollars, Price

FeeKind = Literal["plan_fee", "minimum"]
PLAN_FEE: FeeKind = "plan_fee"
MINIMUM: FeeKind = "minimum"
FEE_PRICES = "plan:"
"""How the ids of all prices of fees begin, and those of no others."""
_ID = re.compile(r"plan:(?P<plan>[^/]+)/(?P<kind>plan_fee|minimum)/(?P<first>[\d-]+)/(?P<last>[\d-]+)/(?P<amount>\d+)")


class FeePrice(msgspec.Struct, frozen=True):
    """What `plan` (its name) asked from the day `first` to the day `last` (YYYY-MM-DD): `amount` in nano-dollars."""

    plan: str
    kind: FeeKind
    first: str
    last: str
    amount: NanoDollars

    @property
    def id(self) -> PriceId:
        return PriceId(f"{self.model}/{self.kind}/{self.first}/{self.last}/{self.amount}")

    @property
    def model(self) -> str:
        """What stands in place of a model where a plan asked for it."""
        return f"{FEE_PRICES}{self.plan}"


def fee_price(price: str) -> FeePrice | None:
    """Return what the id of a price says of a fee; None where it is another one."""
    found = _ID.fullmatch(price)
    return None if found is None else msgspec.convert(found.groupdict(), FeePrice, strict=False)


def read_fee_price(price: str) -> Price | None:
    """Return the price with this id where it is that of a fee."""
    if (stated := fee_price(price)) is None:
        return None
    free = NanoDollars(0)
    return Price(PriceId(price), stated.model, free, free, free, free, fee=stated.amount)


def fee_kind(price: str) -> FeeKind:
    """Return of which kind the lines of a fee are."""
    stated = fee_price(price)
    return PLAN_FEE if stated is None else stated.kind
