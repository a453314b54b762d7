"""A request's query: what is not described is refused by name; and how to describe what a signature cannot say."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import Field, StringConstraints

from tokenyard.core.errors import InvalidRequest
from tokenyard.web.pages import PlainPage
from tokenyard.web.request_guard import NO_NUL

MAX_METADATA = 16
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=NO_NUL)],
        Annotated[str, StringConstraints(max_length=512, pattern=NO_NUL)],
    ],
    Field(max_length=MAX_METADATA),
]
"""What a client notes of a thing of its own, in a body; lists can be asked for by it."""
MAX_LISTED = 100
# SQLite's JSON paths have no way to write the others.
_FILTERABLE = re.compile(r'[^"\\\x00-\x1f]{1,64}')
METADATA_QUERY: dict[str, object] = {
    "name": "metadata",
    "in": "query",
    "description": "Only what has these pairs: `metadata[key]=value`.",
    "style": "deepObject",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": MAX_METADATA},
}
"""Describes what `metadata_filter` reads."""
_WITHOUT_MEANING = frozenset({"beta"})
"""Anthropic's client writes it to calls of its beta interface."""
_OF_PAGES = frozenset({"after", "limit"})
"""Who reads lists in pages says so of all of them; a list that is never long comes whole."""


class DescribedQueries:
    """The names of the query's parameters, by route, as the app describes them."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def refuse_unknown(self, request: Request) -> None:
        """Raise `InvalidRequest` for what the route does not know; routes that are not described take anything."""
        route = request.scope.get("route")
        if not request.query_params or not isinstance(route, APIRoute) or not route.include_in_schema:
            return
        if self._app.openapi_schema is None:
            # Describing the app takes long enough to hold up the streams of others.
            await asyncio.to_thread(self._app.openapi)
        known = self._by_route[request.method, route.path_format] | _WITHOUT_MEANING
        if isinstance(route.response_model, type) and issubclass(route.response_model, PlainPage):
            known |= _OF_PAGES
        for name in request.query_params:
            if name.partition("[")[0] not in known:
                raise InvalidRequest(f"Unknown parameter: '{name[:64]}'.", param=name[:64], code="unknown_parameter")

    @cached_property
    def _by_route(self) -> Mapping[tuple[str, str], frozenset[str]]:
        return {
            (method.upper(), path): frozenset(_names(operation))
            for path, operations in self._app.openapi()["paths"].items()
            for method, operation in operations.items()
        }


def _names(operation: Mapping[str, Any]) -> Iterator[str]:
    return (one["name"] for one in operation.get("parameters", ()) if one["in"] == "query")


def list_query(name: str, items: Mapping[str, object], *, description: str = "") -> dict[str, object]:
    """Describe a list: `name=a&name=b`, or `name[]=a&name[]=b` as OpenAI's clients write it."""
    schema = {"type": "array", "items": items}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def list_values(request: Request, name: str) -> list[str]:
    """Read a list that is written as `list_query` describes; a longer one than we look for raises `InvalidRequest`."""
    values = request.query_params.getlist(name) + request.query_params.getlist(f"{name}[]")
    if len(values) > MAX_LISTED:
        raise InvalidRequest(f"{name} has more than {MAX_LISTED} values.", param=name)
    return values


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
