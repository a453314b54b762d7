"""What no route could take is refused before the caller is known, in OpenAI's shape and never as our failure."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from tokenyard.web.app import create_app
from tokenyard.web.request_guard import MAX_BODY_BYTES


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str


def _routes() -> APIRouter:
    routes = APIRouter()

    @routes.post("/things")
    async def make(body: Named) -> dict[str, str]:
        return {"name": body.name}

    @routes.get("/things/{thing}")
    async def thing(thing: str) -> dict[str, str]:
        return {"name": thing}

    @routes.post("/streams")
    async def stream(request: Request) -> dict[str, int]:
        return {"bytes": sum([len(chunk) async for chunk in request.stream()])}

    return routes


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(title="test", routers=[_routes()], streaming_paths=("/streams",))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


async def _endless() -> AsyncIterator[bytes]:
    """Yield what nobody should read to its end."""
    for _ in range(100):
        yield b" " * (MAX_BODY_BYTES // 4)
    raise AssertionError("the whole body was read")


def _refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_body_of_stated_length_is_not_read(client: httpx.AsyncClient) -> None:
    for length in (str(MAX_BODY_BYTES + 1), "9" * 5000, "-1", "1_0"):
        _refused(await client.post("/things", content=_endless(), headers={"content-length": length}), 413)


async def test_a_body_of_unknown_length_is_read_to_the_limit(client: httpx.AsyncClient) -> None:
    _refused(await client.post("/things", content=_endless()), 413)


async def test_a_body_within_the_limit_passes(client: httpx.AsyncClient) -> None:
    text = "x" * (MAX_BODY_BYTES - 100)
    assert (await client.post("/things", json={"name": text})).json() == {"name": text}


async def test_a_streaming_route_bounds_its_body_itself(client: httpx.AsyncClient) -> None:
    answer = await client.post("/streams", content=b"x" * (2 * MAX_BODY_BYTES))
    assert answer.json() == {"bytes": 2 * MAX_BODY_BYTES}


@pytest.mark.parametrize("path", ["/things/%00", "/things/a?after=%00", "/things/a?x=1&y%00=2"])
async def test_a_nul_in_the_address(client: httpx.AsyncClient, path: str) -> None:
    _refused(await client.get(path), 400)


async def test_half_a_surrogate_pair_in_a_field_s_name(client: httpx.AsyncClient) -> None:
    _refused(await client.post("/things", content=b'{"name": "a", "\\ud800": 1}'), 400)
