"""Lists as OpenAI's API gives them: newest first, with a cursor."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.orm import InstrumentedAttribute

Item = TypeVar("Item")
Place = TypeVar("Place", int, str)


def beyond(
    time: InstrumentedAttribute[Place],
    identity: InstrumentedAttribute[str],
    cursor: tuple[Place, str],
    *,
    newest_first: bool,
) -> ColumnElement[bool]:
    """Return the condition of rows that come after `cursor` when ordered by time or another sorting place, then id."""
    at, last = cursor
    if newest_first:
        return or_(time < at, and_(time == at, identity < last))
    return or_(time > at, and_(time == at, identity > last))


def cut(items: Sequence[Item], limit: int) -> tuple[list[Item], bool]:
    """Split what was read with `limit + 1` into one page and whether there is more."""
    return list(items[:limit]), len(items) > limit


def list_object(data: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return the list object with its cursors."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
