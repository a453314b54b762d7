"""What no route could take is refused before the caller is known, in OpenAI's shape and never as our failure."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from starlette.types import Message, Receive, Send

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
    answer = await client.post("/things", content=_endless())
    _refused(answer, 413)
    assert answer.json()["error"]["code"] == "payload_too_large"


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
    """Begins requests whose bodies do not end, until it is closed."""

    def __init__(self) -> None:
        self.app = create_app(title="test", routers=[_routes()])
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, number: int, address: str, sent: int = MAX_BODY_BYTES) -> list[tuple[int, str, str]]:
        """Begin so many, and send of each that many bytes; return status, type and code of the refusals."""
        refusals: list[tuple[int, str, str]] = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/things",
            "query_string": b"",
            "headers": [(b"transfer-encoding", b"chunked")],
            "client": (address, 1),
        }
        for _ in range(number):
            self._tasks.append(asyncio.create_task(self.app(dict(scope), _sends(sent), _notes(refusals))))
        await asyncio.sleep(0.01)
        return refusals

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


def _sends(size: int) -> Receive:
    """Return what receives so many bytes of a body and then waits for ever."""
    parts = [size] if size else []

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b" " * parts.pop(), "more_body": True}

    return receive


def _notes(refusals: list[tuple[int, str, str]]) -> Send:
    answer: Message = {}

    async def send(message: Message) -> None:
        answer.update(message)
        if message["type"] == "http.response.body":
            assert (b"retry-after", b"1") in answer["headers"]
            error = json.loads(message["body"])["error"]
            refusals.append((answer["status"], error["type"], error["code"]))

    return send


OF_ONE, OF_ALL = BODIES_OF_ONE_BYTES // MAX_BODY_BYTES, BODIES_BYTES // MAX_BODY_BYTES
RATE_LIMITED = (429, "requests", "rate_limit_exceeded")
OVERLOADED = (503, "server_error", "server_is_overloaded")


@pytest.fixture
async def uploads() -> AsyncIterator[Uploads]:
    made = Uploads()
    yield made
    await made.end()


async def test_one_client_s_bodies_under_way_are_bounded(uploads: Uploads) -> None:
    assert await uploads.begin(OF_ONE, "192.0.2.0") == []
    assert await uploads.begin(1, "192.0.2.0", 1) == [RATE_LIMITED]
    assert await uploads.begin(1, "192.0.2.1") == []
    await uploads.end()
    assert await uploads.begin(OF_ONE, "192.0.2.0") == []


async def test_what_was_announced_and_did_not_come_shuts_nobody_out(uploads: Uploads) -> None:
    for number in range(4):
        assert await uploads.begin(OF_ALL, f"192.0.2.{number}", 0) == []
    assert await uploads.begin(OF_ONE, "192.0.2.0") == []
    assert await uploads.begin(OF_ONE, "198.51.100.1") == []


async def test_four_clients_leave_some_to_the_next(uploads: Uploads) -> None:
    for number in range(4):
        await uploads.begin(OF_ONE, f"192.0.2.{number}")
    assert await uploads.begin(1, "198.51.100.1") == []


async def test_all_bodies_under_way_are_bounded(uploads: Uploads) -> None:
    for number in range(OF_ALL):
        assert await uploads.begin(1, f"192.0.2.{number}") == []
    assert await uploads.begin(1, "198.51.100.1", 1) == [OVERLOADED]
    await uploads.end()
    assert await uploads.begin(OF_ONE, "192.0.2.0") == []


async def test_a_request_without_a_body_is_served_while_all_is_taken(uploads: Uploads) -> None:
    for number in range(OF_ALL):
        await uploads.begin(1, f"192.0.2.{number}")
    transport = httpx.ASGITransport(uploads.app, client=("192.0.2.0", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/things")).status_code == 400, "its field is missing"
