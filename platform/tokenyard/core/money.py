"""Money is a whole number of nano-dollars (1e-9 USD); nothing here ever rounds silently.

What a token costs is here, too: the gateway's hold and the ledger's charge come from the same functions.
"""

from decimal import Decimal, InvalidOperation
from typing import NewType, Protocol

import msgspec

from tokenyard.core.ids import PriceId
from tokenyard.core.usage import TokenUsage

NanoDollars = NewType("NanoDollars", int)

NANO_PER_DOLLAR = 1_000_000_000
_TOKENS_PER_MILLION = 1_000_000
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


class Price(msgspec.Struct, frozen=True):
    """The rates of one model on one dated rate card, in whole nano-dollars for one token.

    `id` is `<rate card>/<model>` for a base model and `<rate card>/<model>/fine-tuned` for its adapters.
    """

    id: PriceId
    model: str
    input: NanoDollars
    cached_input: NanoDollars
    output: NanoDollars
    training: NanoDollars


class PriceLookup(Protocol):
    """The dated rate cards, in memory (billing)."""

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        """Return what base model `model`, or an adapter of it, costs at `at_ms` (unix ms); None without a price."""
        ...


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
