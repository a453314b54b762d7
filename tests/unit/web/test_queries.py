"""What a route's description says of its query holds: anything else is refused by name."""

from collections.abc import AsyncIterator
from typing import Annotated

import aiohttp
import pytest
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from support.servers.asgi import running
from tokenyard.web.app import create_app
from tokenyard.web.pages import Identified, Page
from tokenyard.web.queries import METADATA_QUERY, list_query, metadata_filter


class Span(BaseModel):
    start: int = 0
    limit: int = 1


class Found(BaseModel):
    metadata: dict[str, str] | None = None


def router() -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/{name:path}/things", openapi_extra={"parameters": [METADATA_QUERY, list_query("ids", {})]})
    async def things(request: Request, name: str, span: Annotated[Span, Query()]) -> Found:
        return Found(metadata=metadata_filter(request))

    @routes.get("/whole")
    async def whole() -> Page[Identified]:
        return Page[Identified].of([], 1)

    @routes.get("/hidden", include_in_schema=False)
    async def hidden() -> Found:
        return Found()

    return routes


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with running(create_app(title="Things", routers=[router()])) as url, aiohttp.ClientSession(url) as session:
        yield session


@pytest.mark.parametrize(
    "query",
    ["", "limit=2", "start=3", "ids=a&ids=b", "ids[]=a&ids%5B%5D=b", "metadata[a]=b", "metadata=null", "beta=true"],
)
async def test_what_is_described_is_taken(http: aiohttp.ClientSession, query: str) -> None:
    async with http.get(f"/v1/a/b/things?{query}") as reply:
        assert reply.status == 200, await reply.text()


@pytest.mark.parametrize("query", ["Limit=2", "end=3", "limit=2&page=4", "metadat[a]=b", "=", "%20=1"])
async def test_what_is_not_is_refused_by_name(http: aiohttp.ClientSession, query: str) -> None:
    async with http.get(f"/v1/a/b/things?{query}") as reply:
        error = (await reply.json())["error"]
    assert (reply.status, error["type"], error["code"]) == (400, "invalid_request_error", "unknown_parameter")
    assert error["param"] is not None


async def test_any_list_may_be_asked_for_in_pages(http: aiohttp.ClientSession) -> None:
    for query, status in {"limit=20&after=a": 200, "limit=20&other=a": 400}.items():
        async with http.get(f"/whole?{query}") as reply:
            assert reply.status == status


async def test_what_is_described_nowhere_takes_anything(http: aiohttp.ClientSession) -> None:
    async with http.get("/hidden?a=b") as reply:
        assert reply.status == 200
