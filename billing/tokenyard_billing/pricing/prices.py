"""Which price holds for a model at a moment, which one an id names, and tokens x rate. In memory, without I/O."""

from bisect import bisect_right
from pathlib import Path
from typing import Self

import msgspec

from tokenyard.core.ids import PriceId
from tokenyard.core.money import NanoDollars
from tokenyard.core.price import Price
from tokenyard_billing.pricing.rate_cards import RateCard, load_rate_cards


class UnknownPrice(LookupError):
    """No card has a price of this id: the card that it names is not installed here."""


class PriceList:
    """The newest card in force decides alone; older ones explain old charges. An unknown id raises `UnknownPrice`."""

    def __init__(self, cards: tuple[RateCard, ...]) -> None:
        self.cards = cards
        self._starts_ms = [card.effective_from_ms for card in cards]
        self._by_id = {price.id: (card, price) for card in cards for price in card.prices}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder of cards; one that cannot be used raises `InvalidRateCard`."""
        return cls(load_rate_cards(folder))

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        """Return what base model `model`, or an adapter of it, costs at `at_ms`; None where it has no price then."""
        index = bisect_right(self._starts_ms, at_ms) - 1
        if index < 0:
            return None
        identity = f"{self.cards[index].version}/{model}{'/fine-tuned' if fine_tuned else ''}"
        _, price = self._by_id.get(PriceId(identity), (None, None))
        return price

    def by_id(self, price: str) -> Price:
        return self._found(price)[1]

    def card_of(self, price: str) -> RateCard:
        """Return the card that the price called `price` stands on."""
        return self._found(price)[0]

    def _found(self, price: str) -> tuple[RateCard, Price]:
        try:
            return self._by_id[PriceId(price)]
        except KeyError:
            raise UnknownPrice(f"no rate card has the price {price!r}") from None


class RatedLine(msgspec.Struct, frozen=True):
    """`quantity` tokens x `rate` nano-dollars = `amount`. `kind`: input, cached_input, output or training."""

    model: str
    price: PriceId
    kind: str
    quantity: int
    rate: NanoDollars

    @property
    def amount(self) -> NanoDollars:
        return NanoDollars(self.quantity * self.rate)


def rated_lines(
    model: str, price: Price, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int, trained_tokens: int
) -> tuple[RatedLine, ...]:
    """Split what `model` used into what a bill lists; kinds without tokens are left out.

    The hold, the charge and these lines all come to the same figure, because all are exact.
    """
    kinds = (
        ("input", prompt_tokens - cached_tokens, price.input),
        ("cached_input", cached_tokens, price.cached_input),
        ("output", completion_tokens, price.output),
        ("training", trained_tokens, price.training),
    )
    return tuple(RatedLine(model, price.id, kind, quantity, rate) for kind, quantity, rate in kinds if quantity)
