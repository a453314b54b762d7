"""Seals: the chain is whole, and days of it are made anew."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard_billing.periods import HOUR_MS
from tokenyard_billing.proof.checks.comparison import EXAMPLES, broken
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.sealing.lines import DayDigest, sealed_parts
from tokenyard_billing.sealing.recomputing import (
    SealDifference,
    StoredSeal,
    before_chain,
    not_of_parts,
    not_of_rows,
    stored_seals,
    unsealed,
)

MAX_ROWS = 100_000
"""Of each day: what lies behind is looked at another hour."""


async def check_seals(session: AsyncSession, now_ms: int) -> list[Difference]:
    """Each seal follows from the one before it, and nothing is older than the first.

    The newest day, and one that changes by the hour, follow from SQL.
    """
    seals = [seal async for seal in stored_seals(session)]
    pairs = zip([None, *seals], seals, strict=False)
    found = [wrong for before, seal in pairs if (wrong := seal.follows(before)) is not None]
    if seals and (older := await before_chain(session, seals[0])) is not None:
        found.append(older)
    turn = now_ms // HOUR_MS
    for seal in {seals[-1], seals[turn % len(seals)]} if seals else set():
        found += await _of_day(session, seal, turn)
    return [broken(one.name, one.subject, one.detail) for one in found[:EXAMPLES]]


async def _of_day(session: AsyncSession, seal: StoredSeal, turn: int) -> list[SealDifference]:
    parts = await sealed_parts(session, seal.day)
    found = [] if (wrong := not_of_parts(seal, parts)) is None else [wrong]
    for part in _within(parts, turn):
        if (differing := await not_of_rows(session, seal.day, part)) is not None:
            found.append(differing)
    sealed = frozenset(part.organization for part in parts)
    return found + [differing async for differing in unsealed(session, seal.day, sealed)]


def _within(parts: Sequence[DayDigest], turn: int) -> list[DayDigest]:
    """Return parts of at most `MAX_ROWS` rows, or one: they begin elsewhere each time."""
    first = turn % len(parts) if parts else 0
    chosen: list[DayDigest] = []
    rows = 0
    for part in (*parts[first:], *parts[:first]):
        rows += part.charges + part.transactions
        if chosen and rows > MAX_ROWS:
            break
        chosen.append(part)
    return chosen
