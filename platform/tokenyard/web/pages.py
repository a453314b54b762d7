"""Lists as OpenAI pages them: `after` is the id of the last thing seen."""

from collections.abc import Sequence
from typing import Annotated, Generic, Literal, Self, TypeVar

from fastapi import Query
from pydantic import BaseModel

After = Annotated[str | None, Query(max_length=200)]
PageSize = Annotated[int, Query(ge=1, le=100)]
LongPageSize = Annotated[int, Query(ge=1, le=20)]
"""Of things each of which may be as long as a body."""
Order = Literal["asc", "desc"]


class Identified(BaseModel):
    """What a page can hold: its `id` is the cursor."""

    id: str


Item = TypeVar("Item", bound=Identified)


class PlainPage(BaseModel, Generic[Item]):
    """OpenAI's list object in its older form: the cursors are the ids of what it holds."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[Item], limit: int) -> Self:
        """Return a page of at most `limit` things, where `limit + 1` were asked for to learn whether there are more."""
        # The object is said, so that it stays where only fields that were set are shown.
        return cls(object="list", data=list(found[:limit]), has_more=len(found) > limit)


class Page(PlainPage[Item], Generic[Item]):
    """OpenAI's list object."""

    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, found: Sequence[Item], limit: int) -> Self:
        data = list(found[:limit])
        return cls(
            object="list",
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=len(found) > limit,
        )
