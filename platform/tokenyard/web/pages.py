"""Lists as OpenAI pages them: `after` is the id of the last thing seen."""

import re
from collections.abc import Sequence
from typing import Annotated, Generic, Literal, Self, TypeVar

from fastapi import Query, Request
from pydantic import BaseModel

from tokenyard.core.errors import InvalidRequest

MAX_METADATA = 16
# SQLite's JSON paths have no way to write the others.
_FILTERABLE = re.compile(r'[^"\\\x00-\x1f]{1,64}')

After = Annotated[str | None, Query(max_length=200)]
PageSize = Annotated[int, Query(ge=1, le=100)]


class Identified(BaseModel):
    """What a page can hold: its `id` is the cursor."""

    id: str


Item = TypeVar("Item", bound=Identified)


class Page(BaseModel, Generic[Item]):
    """OpenAI's list object."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[Item], limit: int) -> Self:
        """Return a page of at most `limit` things, where `limit + 1` were asked for to learn whether there are more."""
        data = list(found[:limit])
        return cls(
            object="list",  # said, so that it stays where only fields that were set are shown
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=len(found) > limit,
        )


def metadata_filter(request: Request) -> dict[str, str] | None:
    """Read the query's `metadata[k]=v` pairs; `metadata=null` asks, by no pairs, for what has no metadata."""
    if request.query_params.get("metadata") == "null":
        return {}
    pairs = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    if len(pairs) > MAX_METADATA or not all(_FILTERABLE.fullmatch(name) for name in pairs):
        raise InvalidRequest(
            f"Filter by up to {MAX_METADATA} metadata keys without quotes, backslashes or control characters.",
            param="metadata",
        )
    return pairs or None
