"""Money is a whole number of nano-dollars (1e-9 USD); nothing here ever rounds silently."""

from decimal import Decimal, InvalidOperation
from typing import NewType

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
