"""Which price holds for a model at a moment, which one an id names, and tokens x rate. In memory, without I/O."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Literal

import msgspec

from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import PriceId
from tokenyard.core.money import InexactAmount, NanoDollars, Price, multiplied, multiplier_from
from tokenyard_billing.pricing.fee_prices import MINIMUM, PLAN_FEE, fee_kind, read_fee_price
from tokenyard_billing.pricing.rate_cards import FINE_TUNED, RateCard


class UnknownPrice(LookupError):
    """No card that is known here has the price."""


class PriceList:
    """All rate cards of the installation. The newest card in force decides alone; older ones explain old charges.

    A process has one, and `add` brings it the cards that are published while it runs: whoever holds it sees them.
    Without any card, because SQL was down so far, every look-up raises `Unavailable`.
    """

    def __init__(self, cards: Iterable[RateCard] = ()) -> None:
        self.cards: tuple[RateCard, ...] = ()
        self.add(cards)

    def add(self, cards: Iterable[RateCard]) -> None:
        """Take the cards that are not known yet; a known one stays as it is."""
        by_version = {card.version: card for card in (*cards, *self.cards)}
        self.cards = tuple(sorted(by_version.values(), key=lambda card: card.effective_from_ms))
        self._starts_ms = [card.effective_from_ms for card in self.cards]
        self._by_id = {price.id: price for card in self.cards for price in (*card.prices, card.storage_price)}

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        """Return what base model `model`, or an adapter of it, costs at `at_ms`; None where it has no price then."""
        index = self._in_force(at_ms)
        return None if index < 0 else self._on_card(index, model, fine_tuned)

    def price_of_use(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price:
        """Return the price that a use at `at_ms` is charged by.

        It is the one in force then. Where there was none (a gateway whose clock is wrong let the request in), it is the
        last one before, or else the model's first.

        Raises:
            UnknownPrice: no card has the model.
        """
        index = self._in_force(at_ms)
        for each in chain(range(index, -1, -1), range(index + 1, len(self.cards))):
            if price := self._on_card(each, model, fine_tuned):
                return price
        raise UnknownPrice(f"no rate card has a price of {model}")

    def has_card_of(self, price: str) -> bool:
        """Tell whether the card is known that the id `price` names, whether or not it has that price."""
        self._check_read()
        return price in self._by_id or any(price.startswith(f"{card.version}/") for card in self.cards)

    def by_id(self, price: str) -> Price:
        """Return the price with this id, also where it is a card's times a multiplier, or a plan's fee.

        Raises:
            UnknownPrice: no card has it.
        """
        listed, _, multiplier = price.rpartition("@")
        try:
            return (
                self._by_id.get(PriceId(price))
                or read_fee_price(price)
                or multiplied(self._by_id[PriceId(listed)], multiplier_from(multiplier))
            )
        except (KeyError, InexactAmount):
            raise UnknownPrice(f"no rate card has the price {price!r}") from None

    def on_card(self, price: str, version: str) -> Price | None:
        """Return what the card `version` has for the price with an id: of the same model and multiplier.

        Raises:
            UnknownPrice: one of the two cards is not known here.
        """
        own = max((card.version for card in self.cards if price.startswith(f"{card.version}/")), key=len, default=None)
        if own is None or all(card.version != version for card in self.cards):
            raise UnknownPrice(f"no rate card {version!r}, or none of the price {price!r}, is known")
        try:
            return self.by_id(f"{version}{price.removeprefix(own)}")
        except UnknownPrice:
            return None

    def _in_force(self, at_ms: int) -> int:
        self._check_read()
        return bisect_right(self._starts_ms, at_ms) - 1

    def _check_read(self) -> None:
        if not self.cards:
            raise Unavailable("Prices cannot be looked up right now. Please try again.")

    def _on_card(self, index: int, model: str, fine_tuned: bool) -> Price | None:
        identity = f"{self.cards[index].version}/{model}{FINE_TUNED if fine_tuned else ''}"
        price = self._by_id.get(PriceId(identity))
        return price if price is not None and price.model == model else None


Unit = Literal["tokens", "hours", "gigabyte_months", "fees"]
_UNITS: Mapping[str, Unit] = {
    "hosting": "hours",
    "pinned_hosting": "hours",
    "storage": "gigabyte_months",
    PLAN_FEE: "fees",
    MINIMUM: "fees",
}


class RatedLine(msgspec.Struct, frozen=True):
    """`quantity` x `rate` nano-dollars = `amount`.

    `kind`: input, cached_input, output and training are of tokens, hosting and pinned_hosting of hours, storage is of
    gigabytes that were kept for a month; plan_fee and minimum are of fees.
    """

    model: str
    price: PriceId
    kind: str
    quantity: int
    rate: NanoDollars

    @property
    def amount(self) -> NanoDollars:
        return NanoDollars(self.quantity * self.rate)

    @property
    def unit(self) -> Unit:
        return unit_of(self.kind)


def unit_of(kind: str) -> Unit:
    """Return what the lines of a kind count."""
    return _UNITS.get(kind, "tokens")


def rated_lines(
    model: str,
    price: Price,
    *,
    prompt_tokens: int,
    cached_tokens: int,
    completion_tokens: int,
    trained_tokens: int,
    hosted_hours: int = 0,
    pinned_hours: int = 0,
    stored_months: int = 0,
    fees: int = 0,
) -> tuple[RatedLine, ...]:
    """Split what `model` used into what a bill lists; kinds of which there is nothing are left out.

    The hold, the charge and these lines all come to the same figure, because all are exact.
    """
    kinds = (
        ("input", prompt_tokens - cached_tokens, price.input),
        ("cached_input", cached_tokens, price.cached_input),
        ("output", completion_tokens, price.output),
        ("training", trained_tokens, price.training),
        ("hosting", hosted_hours, price.hosting),
        ("pinned_hosting", pinned_hours, price.pinned_hosting),
        ("storage", stored_months, price.storage),
        (fee_kind(price.id), fees, price.fee),
    )
    return tuple(RatedLine(model, price.id, kind, quantity, rate) for kind, quantity, rate in kinds if quantity)
