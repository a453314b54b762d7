"""By which price a use is charged. Pure: its moment decides; what the gateway claimed is only compared."""

from collections.abc import Sequence

import msgspec

from tokenyard.core.clock import HONEST_MS
from tokenyard.core.ids import request_of
from tokenyard.core.money import Price, PriceStep, multiplied, multiplier_at
from tokenyard.core.usage import DEFAULT_TIER, MeterClaims
from tokenyard.metering.events import AdapterHosted, StandaloneUse, StorageHeld, UsageEvent
from tokenyard_billing.charging.decision import Finding
from tokenyard_billing.charging.fee import PlanFee
from tokenyard_billing.pricing.prices import PriceList, UnknownPrice

_SUBJECT_LENGTH = 128


class Rating(msgspec.Struct, frozen=True):
    """`findings`: what the gateway claimed differs from `price`."""

    price: Price
    findings: tuple[Finding, ...] = ()


def used_by(event: UsageEvent) -> MeterClaims | StandaloneUse:
    """Return the part of an event that says what was used, when, and at which price."""
    return event if isinstance(event, StandaloneUse) else event.claims


def tier_of(use: MeterClaims | StandaloneUse | PlanFee) -> str:
    return use.tier if isinstance(use, MeterClaims) else DEFAULT_TIER


def rate(prices: PriceList, steps: Sequence[PriceStep], use: MeterClaims | StandaloneUse) -> Rating:
    """Return the price of `use`; `steps` say by what its organization's prices were multiplied, and when.

    Raises:
        UnknownPrice: it names a card that is not known here (a gateway read it, so it is, or was, in SQL), or no card
            has a price of its model. A card that is published later can change both.
    """
    if isinstance(use, AdapterHosted | StorageHeld):
        return Rating(_price_at(prices, steps, use, use.admitted_at_ms))
    if not prices.has_card_of(use.price):
        raise UnknownPrice(f"no rate card of the price {use.price!r} is known")
    price = _price_at(prices, steps, use, use.admitted_at_ms)
    # Around the start of a card or a multiplier: the gateway chooses the price by its own clock, a moment before Redis
    # dates the admission.
    if use.price == price.id or any(
        use.price == _price_at(prices, steps, use, use.admitted_at_ms + shift).id for shift in (-HONEST_MS, +HONEST_MS)
    ):
        return Rating(price)
    message = f"the gateway claimed the price {use.price}, the one in force is {price.id} and was charged"
    return Rating(price, (Finding("price_differs", _charge_key(use), message),))


def unknown_price(use: MeterClaims | StandaloneUse, error: UnknownPrice) -> Finding:
    """Return what an operator must see: one alarm for a price, however many events wait for it."""
    message = f"{_charge_key(use)}, and whatever else has this price, waits uncharged: {error}"
    return Finding("price_unknown", (use.price or use.base_model)[:_SUBJECT_LENGTH], message)


def _price_at(prices: PriceList, steps: Sequence[PriceStep], use: MeterClaims | StandaloneUse, at_ms: int) -> Price:
    tuned = isinstance(use, AdapterHosted) or (isinstance(use, MeterClaims) and use.adapter is not None)
    listed = prices.price_of_use(use.base_model, fine_tuned=tuned, at_ms=at_ms)
    return multiplied(listed, multiplier_at(steps, tier_of(use), at_ms))


def _charge_key(use: MeterClaims | StandaloneUse) -> str:
    return use.charge_key if isinstance(use, StandaloneUse) else request_of(use.attempt)
