"""Money as the scripts have it (`lua/bucket.lua`): an amount is two doubles, billions and rest, together exact."""

import struct
from collections.abc import Iterable
from typing import Self

import msgspec

_BILLION = 1_000_000_000
_AMOUNT = struct.Struct(">2d")
_BUDGET = struct.Struct(">7d")
NO_LEDGER = -1


class BudgetFigures(msgspec.Struct, frozen=True):
    """What stands of one budget in Redis, in nano-dollars. One of version NO_LEDGER is known, and not loaded."""

    ledger: int = 0
    version: int = NO_LEDGER
    pending: int = 0
    held: int = 0

    @classmethod
    def unpacked(cls, value: bytes | None) -> Self:
        """Return the figures of a budget's value; None is a budget that Redis does not have."""
        if value is None:
            return cls()
        numbers = _BUDGET.unpack(value)
        ledger, pending, held = (amount_of(*numbers[at : at + 2]) for at in (0, 3, 5))
        return cls(ledger, int(numbers[2]), pending, held)


def packed(amounts: Iterable[int]) -> bytes:
    """Return amounts as the scripts take them."""
    return b"".join([packed_amount(amount) for amount in amounts])


def packed_amount(amount: int) -> bytes:
    return _AMOUNT.pack(*divmod(amount, _BILLION))


def pending_charge(record: bytes) -> tuple[int, list[str]]:
    """Return what is pending of a charge, and the names of the budgets that it is pending on."""
    return amount_of(*_AMOUNT.unpack_from(record)), record[_AMOUNT.size :].decode().split()


def amount_of(billions: float, rest: float) -> int:
    """Return the amount that two of the scripts' numbers are."""
    return int(billions) * _BILLION + int(rest)
