"""What no route could take is refused before the caller is known, in OpenAI's shape and never as our failure."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from starlette.types import Message

from tokenyard.web.app import create_app
from tokenyard.web.request_guard import BODIES_BYTES, BODIES_OF_ONE_BYTES, MAX_BODY_BYTES


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


class Uploads:
    """Begins requests whose bodies do not come, until it is closed."""

    def __init__(self) -> None:
        self.app = create_app(title="test", routers=[_routes()])
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, number: int, address: str, headers: list[tuple[bytes, bytes]]) -> list[int]:
        """Begin so many; return the statuses of those that are answered at once."""
        statuses: list[int] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def never() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/things",
            "query_string": b"",
            "headers": headers,
            "client": (address, 1),
        }
        for _ in range(number):
            self._tasks.append(asyncio.create_task(self.app(dict(scope), never, send)))
        await asyncio.sleep(0.01)
        return statuses

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


@pytest.mark.parametrize("header", [(b"content-length", b"%d" % MAX_BODY_BYTES), (b"transfer-encoding", b"chunked")])
async def test_all_bodies_under_way_are_bounded_and_one_client_s_are_before(header: tuple[bytes, bytes]) -> None:
    uploads = Uploads()
    of_one, of_all = BODIES_OF_ONE_BYTES // MAX_BODY_BYTES, BODIES_BYTES // MAX_BODY_BYTES
    assert await uploads.begin(of_one, "192.0.2.0", [header]) == []
    assert await uploads.begin(1, "192.0.2.0", [header]) == [429]
    for number in range(1, of_all // of_one):
        assert await uploads.begin(of_one, f"192.0.2.{number}", [header]) == []
    assert await uploads.begin(1, "198.51.100.1", [header]) == [503]
    await uploads.end()
    assert await uploads.begin(of_one, "192.0.2.0", [header]) == []
    await uploads.end()
