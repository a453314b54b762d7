"""The client's end of an exchange, over hand-made ASGI callables."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tokenyard.core.errors import InvalidRequest, PayloadTooLarge
from tokenyard.gateway.path.client import ClientConnection, ClientLeft

SCOPE = {"type": "http", "headers": [(b"x-a", b"1")]}


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


async def test_a_body_that_never_comes() -> None:
    client = ClientConnection(SCOPE, _receiving(_part(b"a", more=True)), _ignore, upload_timeout_s=0.01)
    with pytest.raises(InvalidRequest, match="in time"):
        await client.body(10, _any_size)


async def test_a_body_that_is_cut() -> None:
    client = ClientConnection(SCOPE, _receiving(_part(b"a", more=True), {"type": "http.disconnect"}), _ignore)
    with pytest.raises(ClientLeft):
        await client.body(10, _any_size)


async def test_leaving_ends_what_is_done_for_it() -> None:
    client = ClientConnection(SCOPE, _receiving({"type": "http.disconnect"}), _ignore)
    with pytest.raises(ClientLeft):
        async with client.watched():
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_end_of_an_answer_is_not_leaving() -> None:
    client = ClientConnection(SCOPE, _receiving({"type": "http.disconnect"}), _ignore)
    async with client.watched():
        await client.finish()
        await asyncio.sleep(0.01)


async def test_a_stall_ends_it() -> None:
    async def stuck(_message: Any) -> None:
        await asyncio.Event().wait()

    client = ClientConnection(SCOPE, _receiving(), stuck, stall_limit_s=0.01)
    with pytest.raises(ClientLeft):
        async with client.watched():
            await client.write(b"x")


async def test_cancellation_from_elsewhere_stays_one() -> None:
    client = ClientConnection(SCOPE, _receiving(), _ignore)
    inside = asyncio.Event()

    async def serve() -> None:
        async with client.watched():
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
