"""Compares sums of two places by key, in SQL; and names what differs."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, SelectBase, func, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from tokenyard_billing.proof.views import Difference

EXAMPLES = 20  # of each kind


class Side(NamedTuple):
    """Rows of keys and amounts; `words` say where they stand."""

    words: str
    rows: SelectBase


def broken(name: str, subject: str, detail: str) -> Difference:
    return Difference(name=name, subject=subject, detail=detail, broken=True)


def noted(name: str, subject: str, detail: str) -> Difference:
    """Name something that an operator should know of, and that may be."""
    return Difference(name=name, subject=subject, detail=detail, broken=False)


async def compare(session: AsyncSession, name: str, left: Side, right: Side, *, keys: int = 1) -> list[Difference]:
    """Sum the amounts of both sides by their first `keys` columns; a key that one side lacks stands at 0 there."""
    mine, other = left.rows.subquery().c, right.rows.subquery().c
    amounts = mine.keys()[keys:]
    zeros = [literal(0).label(f"zero_{amount}") for amount in amounts]
    both = union_all(select(*mine, *zeros), select(*other[:keys], *zeros, *other[keys:])).subquery().c
    by = both[:keys]
    sums = [func.sum(column) for column in both[keys:]]
    pairs = list(zip(sums[: len(amounts)], sums[len(amounts) :], strict=True))
    query = select(*by, *sums).group_by(*by).having(or_(*(one != two for one, two in pairs)))
    return [
        broken(name, "/".join(map(str, row[:keys])), _detail(left.words, right.words, amounts, row[keys:]))
        for row in await session.execute(query.order_by(*by).limit(EXAMPLES))
    ]


def month_of(session: AsyncSession, at_ms: InstrumentedAttribute[int]) -> ColumnElement[str]:
    """Return the UTC month of unix milliseconds as YYYY-MM, as the session's dialect says it."""
    if session.get_bind().dialect.name == "sqlite":
        return func.strftime("%Y-%m", at_ms // 1000, "unixepoch")
    return func.to_char(func.timezone("UTC", func.to_timestamp(at_ms // 1000)), "YYYY-MM")


def _detail(left: str, right: str, amounts: list[str], sums: tuple[int, ...]) -> str:
    pairs = zip(amounts, sums[: len(amounts)], sums[len(amounts) :], strict=True)
    return "; ".join(f"{amount}: {left} {one}, {right} {two}" for amount, one, two in pairs if one != two)
