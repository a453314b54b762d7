"""A tenant's server that gets webhooks: a bare socket, so that it can also behave as no server should."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What it does with a request that it has read."""


def answers(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answer so; `location` and the like are headers."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} Said\r\n{told}content-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return answer


async def hangs(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def closes(_writer: asyncio.StreamWriter) -> None:
    """Close without a word."""


async def babbles(writer: asyncio.StreamWriter) -> None:
    """Answer with what is not HTTP."""
    writer.write(b"220 mail.example.com ESMTP\r\n")
    await writer.drain()


async def never_stops(writer: asyncio.StreamWriter) -> None:
    """Accept it, with a body that has no end."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def trickles(writer: asyncio.StreamWriter) -> None:
    """Send the head of an answer a byte at a time, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nx: ")
    while True:
        writer.write(b"y")
        await writer.drain()
        await asyncio.sleep(0.01)


@dataclass(frozen=True)
class ReceivedWebhook:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class WebhookReceiver:
    """Does as `behaviours` say, by the path of the URL; else it answers 204. `most` is how many it had at once."""

    url: str = ""
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    received: list[ReceivedWebhook] = field(default_factory=list)
    connections: int = 0
    most: Counter[str] = field(default_factory=Counter)
    _now: Counter[str] = field(default_factory=Counter)

    def at(self, path: str) -> list[ReceivedWebhook]:
        return [one for one in self.received if one.path == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._behave(await _read(reader), reader, writer)
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()

    async def _behave(
        self, received: ReceivedWebhook, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        path = received.path
        self.received.append(received)
        self._now[path] += 1
        self.most[path] = max(self.most[path], self._now[path])
        answering = asyncio.ensure_future(self.behaviours.get(path, answers(204))(writer))
        left = asyncio.create_task(reader.read())
        try:
            await asyncio.wait({answering, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._now[path] -= 1
            for task in (answering, left):
                task.cancel()
            await asyncio.gather(answering, left, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> ReceivedWebhook:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedWebhook(first.split(" ")[1], headers, body)


@asynccontextmanager
async def receiving() -> AsyncIterator[WebhookReceiver]:
    """Run one on a free port of 127.0.0.1; its `url` has no path."""
    receiver = WebhookReceiver()
    tasks = set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(set(tasks))
