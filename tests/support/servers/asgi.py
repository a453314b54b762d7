"""Runs an ASGI application on a real socket, inside the test's own event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp, Receive

START_TIMEOUT_S = 10.0


@asynccontextmanager
async def running(app: ASGIApp, *, lifespan: bool = False, config: uvicorn.Config | None = None) -> AsyncIterator[str]:
    """Serve `app` on a free port of 127.0.0.1, or what `config` says; yield its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = config or uvicorn.Config(
        app,
        http="httptools",
        lifespan="on" if lifespan else "off",
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await _started(server, serving)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=START_TIMEOUT_S)
        listener.close()


async def _started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while not server.started:
            if serving.done():
                raise RuntimeError("the server ended while starting")
            await asyncio.sleep(0.01)


async def read_body(receive: Receive) -> bytes:
    """Return the whole body of a request."""
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
