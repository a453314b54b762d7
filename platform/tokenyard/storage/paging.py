"""Lists as OpenAI's API gives them: in the order of time, beginning behind a cursor."""

from typing import TypeVar

from sqlalchemy import Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute

from tokenyard.storage.database import Base

Row = TypeVar("Row", bound=Base)
Place = TypeVar("Place", int, str)


def part_of_list(
    query: Select[Row],
    time: InstrumentedAttribute[Place],
    identity: InstrumentedAttribute[str],
    *,
    after: Row | None,
    limit: int,
    newest_first: bool = True,
) -> Select[Row]:
    """Order `query` by time or another sorting place, then id, and take up to `limit` rows behind the row `after`."""
    if after is not None:
        at, last = getattr(after, time.key), getattr(after, identity.key)
        if newest_first:
            query = query.where(or_(time < at, and_(time == at, identity < last)))
        else:
            query = query.where(or_(time > at, and_(time == at, identity > last)))
    order = (time.desc(), identity.desc()) if newest_first else (time, identity)
    return query.order_by(*order).limit(limit)
