"""The client's end of an exchange, over hand-made ASGI callables."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tokenyard.core.errors import PayloadTooLarge
from tokenyard.gateway.path.client import ClientConnection, ClientLeft
from tokenyard.web.edge.leaving import LEAVING

SCOPE = {"type": "http", "headers": [(b"x-a", b"1")]}


class Server:
    """The end of a connection, as the server's protocol offers it to a request."""

    def __init__(self) -> None:
        self._told: Callable[[], None] | None = None
        self.scope = {**SCOPE, "extensions": {LEAVING: {"tell": self._tell}}}

    def _tell(self, told: Callable[[], None] | None) -> None:
        self._told = told

    def lose_client(self) -> None:
        if self._told is not None:
            self._told()


def _receiving(*messages: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Return what hands out `messages` and then waits for ever."""

    async def each() -> AsyncIterator[dict[str, Any]]:
        for message in messages:
            yield message
        await asyncio.Event().wait()

    waiting = each()
    return lambda: anext(waiting)


async def _ignore(_message: Any) -> None:
    pass


def _any_size(_size: int) -> None:
    pass


def _part(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


async def test_a_body_in_parts() -> None:
    client = ClientConnection(SCOPE, _receiving(_part(b"a", more=True), _part(b"b", more=False)), _ignore)
    came: list[int] = []
    assert await client.body(2, came.append) == b"ab"
    assert came == [1, 1]
    assert (client.header(b"x-a"), client.header(b"x-b")) == ("1", None)


async def test_a_body_over_the_limit_is_not_read_on() -> None:
    client = ClientConnection(SCOPE, _receiving(_part(b"abc", more=True)), _ignore)
    with pytest.raises(PayloadTooLarge):
        await client.body(2, _any_size)


async def test_a_body_that_is_cut() -> None:
    client = ClientConnection(SCOPE, _receiving(_part(b"a", more=True), {"type": "http.disconnect"}), _ignore)
    with pytest.raises(ClientLeft):
        await client.body(10, _any_size)


async def test_leaving_ends_what_is_done_for_it() -> None:
    server = Server()
    client = ClientConnection(server.scope, _receiving(), _ignore)
    asyncio.get_running_loop().call_soon(server.lose_client)
    with pytest.raises(ClientLeft), client.watched():
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_end_of_an_answer_is_not_leaving() -> None:
    server = Server()
    client = ClientConnection(server.scope, _receiving(), _ignore)
    with client.watched():
        await client.finish()
        server.lose_client()
        await asyncio.sleep(0)
    server.lose_client()
    await asyncio.sleep(0)


async def test_cancellation_from_elsewhere_stays_one() -> None:
    client = ClientConnection(Server().scope, _receiving(), _ignore)
    inside = asyncio.Event()

    async def serve() -> None:
        with client.watched():
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
