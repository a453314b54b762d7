"""Money is a whole number of nano-dollars (1e-9 USD); nothing here ever rounds silently.

What a token costs is here, too: the gateway's hold and the ledger's charge come from the same functions.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import NewType, Protocol

import msgspec

from tokenyard.core.ids import PriceId
from tokenyard.core.usage import TokenUsage

NanoDollars = NewType("NanoDollars", int)
Multiplier = NewType("Multiplier", int)
"""Ten-thousandths of the prices on a rate card: 8000 is 0.8 times."""
Millionths = NewType("Millionths", int)
"""Of an amount: 190_000 is 19 percent."""

NANO_PER_DOLLAR = 1_000_000_000
CENT = NanoDollars(NANO_PER_DOLLAR // 100)
WHOLE = Millionths(1_000_000)
_TOKENS_PER_MILLION = 1_000_000
LIST_PRICE = Multiplier(10_000)
MAX_MULTIPLIER = Multiplier(10 * LIST_PRICE)
MULTIPLIER_LENGTH = 8
PRICE_LEAD_MS = 15 * 60_000
"""Whatever changes a price is published at least this far ahead: longer than a process that lost SQL can still let
anyone in (its cached keys end after ten minutes), and thirty times as long as it takes to read it after a lost push."""
_MAX_DIGITS = 19  # times a thousand million that is 28, up to which decimals are exact


class InexactAmount(ValueError):
    """The amount is not a whole number of nano-dollars."""


def _exact(amount: Decimal, what: str) -> NanoDollars:
    whole = amount.to_integral_value()
    if whole != amount:
        raise InexactAmount(f"{what} is finer than one nano-dollar")
    return NanoDollars(int(whole))


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InexactAmount(f"{text!r} is not an amount of dollars") from None
    if not value.is_finite():
        raise InexactAmount(f"{text!r} is not a finite amount of dollars")
    if len(value.as_tuple().digits) > _MAX_DIGITS or abs(value.adjusted()) > _MAX_DIGITS:
        raise InexactAmount("an amount of dollars has at most 19 digits")
    return value


def from_dollars(text: str) -> NanoDollars:
    """Read dollars such as `"5"` or `"0.25"`.

    Raises:
        InexactAmount: not a number, or finer than a nano-dollar.
    """
    return _exact(_decimal(text) * NANO_PER_DOLLAR, f"{text} dollars")


def rate_from_dollars_per_million(text: str) -> NanoDollars:
    """Read a price such as `"0.15"` dollars for a million tokens; return nano-dollars for one token.

    Raises:
        InexactAmount: not a number, or the rate is not a whole number of nano-dollars a token.
    """
    return _exact(_decimal(text) * NANO_PER_DOLLAR / _TOKENS_PER_MILLION, f"{text} dollars a million tokens")


def to_dollars(amount: int) -> str:
    """Write an amount exactly, with at least two decimals: `1_500_000_000` becomes `"1.50"`."""
    sign = "-" if amount < 0 else ""
    dollars, nano = divmod(abs(amount), NANO_PER_DOLLAR)
    decimals = f"{nano:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{decimals}"


STORAGE = "storage"
"""What stands in place of a model where the use is of storage."""


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rates of one model on one dated rate card, in whole nano-dollars for one token.

    `hosting` and `pinned_hosting` are for one hour of a fine-tune, `storage` is for a gigabyte kept for a month; cards
    from before there were any state none. `fee` is the whole of what a plan asks for a part of a month.

    `id` is `<rate card>/<model>` for a base model, `<rate card>/<model>/fine-tuned` for its adapters,
    `<rate card>/storage` for what is stored, and what billing makes it for a plan's fee.
    """

    id: PriceId
    model: str
    input: NanoDollars
    cached_input: NanoDollars
    output: NanoDollars
    training: NanoDollars
    hosting: NanoDollars = NanoDollars(0)
    pinned_hosting: NanoDollars = NanoDollars(0)
    storage: NanoDollars = NanoDollars(0)
    fee: NanoDollars = NanoDollars(0)


class PriceStep(msgspec.Struct, frozen=True):
    """By what an organization's prices are multiplied from `from_ms` (unix ms) on; service tiers may have their own."""

    from_ms: int
    multiplier: Multiplier
    tiers: Mapping[str, Multiplier] = {}


class FeeStep(msgspec.Struct, frozen=True):
    """What an organization's plan asks for a whole month, from `from_ms` (unix ms) on.

    `fee` is asked beside what is used; all of a month comes to at least `minimum`. `plan` is its name; without a plan
    it is empty, and nothing is asked.
    """

    from_ms: int
    plan: str
    fee: NanoDollars = NanoDollars(0)
    minimum: NanoDollars = NanoDollars(0)


class PriceLookup(Protocol):
    """The dated rate cards, in memory (billing)."""

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        """Return what base model `model`, or an adapter of it, costs at `at_ms` (unix ms); None without a price."""
        ...


def multiplier_from(text: str) -> Multiplier:
    """Read a multiplier such as `"0.8"`.

    Raises:
        InexactAmount: not a number from 0 to 10, or one with more than four decimals.
    """
    return Multiplier(_ten_thousandths(text, MAX_MULTIPLIER, "a price multiplier is from 0 to 10"))


def multiplier_text(multiplier: Multiplier) -> str:
    """Write a multiplier in its one form: 8000 becomes `"0.8"`."""
    return _four_decimals(multiplier)


def rate_from_percent(text: str) -> Millionths:
    """Read a part of an amount such as `"19"` or `"8.875"` percent.

    Raises:
        InexactAmount: not a number from 0 to 100, or one with more than four decimals.
    """
    return Millionths(_ten_thousandths(text, WHOLE, "a percentage is from 0 to 100"))


def percent_text(rate: int) -> str:
    """Write millionths as percent in their one form: 88_750 becomes `"8.875"`."""
    return _four_decimals(rate)


def _ten_thousandths(text: str, most: int, bounds: str) -> int:
    scaled = _decimal(text) * 10_000
    if not 0 <= scaled <= most or scaled != scaled.to_integral_value():
        raise InexactAmount(f"{bounds} and has at most four decimals")
    return int(scaled)


def _four_decimals(ten_thousandths: int) -> str:
    whole, part = divmod(ten_thousandths, 10_000)
    return f"{whole}.{part:04d}".rstrip("0").rstrip(".")


def multiplier_at(steps: Sequence[PriceStep], tier: str, at_ms: int) -> Multiplier:
    """Return what holds for `tier` at `at_ms`; `steps` are in the order of their dates."""
    for step in reversed(steps):
        if step.from_ms <= at_ms:
            return step.tiers.get(tier, step.multiplier)
    return LIST_PRICE


def multiplied(price: Price, multiplier: Multiplier) -> Price:
    """Return the price that follows from one on a card: each rate times the multiplier, rounded half up.

    Its id is `<id of that price>@<multiplier>`, so whoever has the card finds it, and can work it out again.
    """
    if multiplier == LIST_PRICE:
        return price

    def rate(listed: NanoDollars) -> NanoDollars:
        return NanoDollars((listed * multiplier + LIST_PRICE // 2) // LIST_PRICE)

    return Price(
        id=PriceId(f"{price.id}@{multiplier_text(multiplier)}"),
        model=price.model,
        input=rate(price.input),
        cached_input=rate(price.cached_input),
        output=rate(price.output),
        training=rate(price.training),
        hosting=rate(price.hosting),
        pinned_hosting=rate(price.pinned_hosting),
        storage=rate(price.storage),
    )


def inference_cost(price: Price, usage: TokenUsage) -> NanoDollars:
    """Return tokens x rate: exact, because both are whole numbers."""
    fresh = usage.prompt_tokens - usage.cached_tokens
    return NanoDollars(
        fresh * price.input + usage.cached_tokens * price.cached_input + usage.completion_tokens * price.output
    )


def worst_case_cost(price: Price, *, prompt_tokens: int, completion_tokens: int) -> NanoDollars:
    """Return the most that a request can cost: nothing cached, every allowed token produced."""
    dearest_input = max(price.input, price.cached_input)
    return NanoDollars(prompt_tokens * dearest_input + completion_tokens * price.output)


def training_cost(price: Price, trained_tokens: int) -> NanoDollars:
    """Return the cost of training on `trained_tokens` tokens (dataset tokens x epochs)."""
    return NanoDollars(trained_tokens * price.training)


def hosting_cost(price: Price, *, pinned: bool) -> NanoDollars:
    """Return the cost of an hour of a fine-tune that is live."""
    return price.pinned_hosting if pinned else price.hosting
