"""Which price holds for a model at a moment, and which one an id names. In memory, without I/O."""

from bisect import bisect_right
from pathlib import Path

from tokenyard.core.ids import PriceId
from tokenyard.core.price import Price
from tokenyard_billing.pricing.rate_cards import RateCard, load_rate_cards


class UnknownPrice(LookupError):
    """No card has a price of this id: the card that it names is not installed here."""


class PriceList:
    """All rate cards of an installation. The newest one in force decides alone; older ones explain old charges."""

    def __init__(self, cards: tuple[RateCard, ...]) -> None:
        self.cards = cards
        self._starts_ms = [card.effective_from_ms for card in cards]
        self._of_card = [{price.id: price for price in card.prices} for card in cards]
        self._by_id = {price.id: price for card in cards for price in card.prices}
        self._card_of = {price.id: card for card in cards for price in card.prices}

    @classmethod
    def load(cls, folder: Path) -> "PriceList":
        """Read a folder of cards.

        Raises:
            InvalidRateCard: a card cannot be used.
        """
        return cls(load_rate_cards(folder))

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        """Return what base model `model`, or an adapter of it, costs at `at_ms`; None where it has no price then."""
        index = bisect_right(self._starts_ms, at_ms) - 1
        if index < 0:
            return None
        identity = f"{self.cards[index].version}/{model}"
        return self._of_card[index].get(PriceId(f"{identity}/fine-tuned" if fine_tuned else identity))

    def by_id(self, price: str) -> Price:
        """Return the price called `price`.

        Raises:
            UnknownPrice: no card has it.
        """
        try:
            return self._by_id[PriceId(price)]
        except KeyError:
            raise UnknownPrice(f"no rate card has the price {price!r}") from None

    def card_of(self, price: str) -> RateCard:
        """Return the card that the price called `price` stands on.

        Raises:
            UnknownPrice: no card has it.
        """
        try:
            return self._card_of[PriceId(price)]
        except KeyError:
            raise UnknownPrice(f"no rate card has the price {price!r}") from None
