"""What tax comes to, what credit pays for, and what of an amount can be paid. Pure; whole nano-dollars."""

from collections.abc import Iterable, Sequence

import msgspec

from tokenyard.core.money import WHOLE, Millionths, NanoDollars


class LineTax(msgspec.Struct, frozen=True):
    """How a line is taxed: the price holds the tax already (`inclusive`), or it comes on top."""

    name: str = ""
    rate: Millionths = Millionths(0)
    inclusive: bool = False


UNTAXED = LineTax()


def tax_of(amount: NanoDollars, how: LineTax) -> NanoDollars:
    """Return the tax on `amount`, or in it, rounded half up to the nano-dollar.

    That of an amount below 0, which takes something back, is the same below 0.
    """
    gross = WHOLE + (how.rate if how.inclusive else 0)
    tax = _rounded(abs(amount) * how.rate, gross)
    return NanoDollars(tax if amount > 0 else -tax)


def spread_credit(credit: NanoDollars, amounts: Iterable[NanoDollars]) -> list[NanoDollars]:
    """Return what of each amount `credit` pays: it pays for those above 0, in their order."""
    left = int(credit)
    paid: list[NanoDollars] = []
    for amount in amounts:
        paid.append(NanoDollars(min(left, max(amount, 0))))
        left -= paid[-1]
    return paid


def spread_over_groups(credit: NanoDollars, groups: Iterable[Sequence[NanoDollars]]) -> list[list[NanoDollars]]:
    """Return what of each amount `credit` pays: it pays for groups in their order, and of each for what it comes to.

    Amounts of a group are taxed alike, so those above 0 are not paid at one rate while those below 0 are left at it.
    """
    left = NanoDollars(credit)
    paid: list[list[NanoDollars]] = []
    for group in groups:
        part = NanoDollars(min(left, max(sum(group), 0)))
        paid.append(spread_credit(part, group))
        left = NanoDollars(left - part)
    return paid


def rounded_to(amount: NanoDollars, unit: NanoDollars) -> NanoDollars:
    """Return the whole multiple of `unit` that is nearest to `amount`, the higher of two."""
    return NanoDollars(_rounded(amount, unit) * unit)


def _rounded(dividend: int, divisor: int) -> int:
    return (2 * dividend + divisor) // (2 * divisor)
