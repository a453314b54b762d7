"""Proves seals against what stands in SQL, across organizations."""

import msgspec

from tokenyard.storage.database import Database
from tokenyard_billing.sealing.recomputing import (
    SealDifference,
    first_difference,
    seal_before,
    stored_seals,
)

STATEMENT_TIMEOUT_S = 600.0
MAX_ROWS = 200_000
"""After so many rows no further day is begun."""
MAX_DAYS = 400


class SealVerification(msgspec.Struct, frozen=True):
    """`through` is the last day that was looked at: none where there was none. `more`: days behind it are left."""

    days: int
    rows: int
    through: str | None
    more: bool
    difference: SealDifference | None


class SealOperatorStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def verify(self, first: str, last: str) -> SealVerification:
        """Make the days from `first` to `last` anew, in order, until one differs or enough was read."""
        days = rows = 0
        through: str | None = None
        async with self._database.reading(statement_timeout_s=STATEMENT_TIMEOUT_S) as session:
            before = await seal_before(session, first)
            seals = [seal async for seal in stored_seals(session, first, last)]
            for seal in seals:
                if rows >= MAX_ROWS or days >= MAX_DAYS:
                    return SealVerification(days, rows, through, more=True, difference=None)
                read, difference = 0, seal.follows(before)
                if difference is None:
                    read, difference = await first_difference(session, seal)
                days, rows, through, before = days + 1, rows + read, seal.day, seal
                if difference is not None:
                    return SealVerification(days, rows, through, more=seal.day != seals[-1].day, difference=difference)
        return SealVerification(days, rows, through, more=False, difference=None)
