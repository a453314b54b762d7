"""The prices that charges name, with all that they follow from. Pure."""

from typing import Any

from tokenyard.core.money import Price
from tokenyard_billing.pricing.fee_prices import read_fee_price
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.pricing.rate_cards import RateCard

RATES = ("input", "cached_input", "output", "training", "hosting", "pinned_hosting", "storage", "fee")


def stated_price(prices: PriceList, identity: str) -> dict[str, Any]:
    """Return a price with its rates in nano-dollars.

    That of a card says which card and its checksum; one that was multiplied also says by what, and the listed rates.

    Raises:
        UnknownPrice: no card that is known here has it.
    """
    price = prices.by_id(identity)
    stated: dict[str, Any] = {"id": identity, "model": price.model, "rates": _rates(price)}
    if read_fee_price(identity) is not None:
        return stated | {"card": None}
    card = _card(prices, identity)
    stated |= {"card": {"version": card.version, "sha256": card.sha256}, "multiplied": None}
    if all(one.id != identity for one in (*card.prices, card.storage_price)):
        listed, _, multiplier = identity.rpartition("@")
        rates = _rates(prices.by_id(listed))
        stated["multiplied"] = {"listed": listed, "multiplier": multiplier, "rates": rates}
    return stated


def _card(prices: PriceList, identity: str) -> RateCard:
    """Return the card whose version the id begins with: the longest one."""
    return max(
        (card for card in prices.cards if identity.startswith(f"{card.version}/")), key=lambda card: len(card.version)
    )


def _rates(price: Price) -> dict[str, int]:
    return {name: getattr(price, name) for name in RATES}
