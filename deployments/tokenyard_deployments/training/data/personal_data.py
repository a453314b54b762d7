"""Suspected personal data and secrets in a text, by kind. Never the text itself: only that it is there.

Every pattern has a bounded length, so that no text takes longer than its size.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_CARD_DIGITS = range(13, 20)
_PHONE_DIGITS = range(9, 16)
_IBAN_REMAINDER = 1


class _Kind(NamedTuple):
    """`holds` looks closer at what the pattern found."""

    name: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = lambda _: True


def kinds_in(text: str) -> Iterator[str]:
    """Yield each kind once that seems to be in `text`."""
    for kind in _KINDS:
        if any(kind.holds(found.group()) for found in kind.pattern.finditer(text)):
            yield kind.name


def _is_card(text: str) -> bool:
    digits = _digits(text)
    return len(digits) in _CARD_DIGITS and len(set(digits)) > 1 and _luhn(digits)


def _luhn(digits: list[int]) -> bool:
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(text: str) -> bool:
    return len(_digits(text)) in _PHONE_DIGITS and not _is_card(text)


def _is_iban(text: str) -> bool:
    bare = text.replace(" ", "")
    number = "".join(str(int(letter, 36)) for letter in bare[4:] + bare[:4])
    return int(number) % 97 == _IBAN_REMAINDER


def _digits(text: str) -> list[int]:
    return [int(letter) for letter in text if letter.isdecimal()]


_KINDS = (
    _Kind(
        "e-mail address",
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![\w-])", re.ASCII),
    ),
    # With a country's code, or an area in brackets, or in groups; other numbers are too often prices and the like.
    _Kind(
        "phone number",
        re.compile(
            r"(?<![\w.,/+-])(?<!\d )(?:(?:\+|00)[1-9]|\(0?\d{2,5}\)|0\d{1,4}[ /-]|\d{3}[ -](?=\d{3}[ -]\d{4}\b))"
            r"[\d ()/-]{5,22}\d(?![\w-])",
            re.ASCII,
        ),
        _is_phone,
    ),
    _Kind("card number", re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])", re.ASCII), _is_card),
    _Kind(
        "bank account", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.ASCII), _is_iban
    ),
    _Kind(
        "secret key",
        re.compile(
            r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY-----|\bAKIA[A-Z0-9]{16}\b|\b(?:sk|pk|rk|ty)-[A-Za-z0-9_-]{20,200}"
            r"|\bgh[pousr]_[A-Za-z0-9]{36,80}\b|\bxox[abprs]-[A-Za-z0-9-]{10,80}|\bAIza[A-Za-z0-9_-]{35}\b"
            r"|\beyJ[A-Za-z0-9_-]{10,1000}\.eyJ[A-Za-z0-9_-]{10,1000}\.[A-Za-z0-9_-]{10,1000}",
            re.ASCII,
        ),
    ),
)
