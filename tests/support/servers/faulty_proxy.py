"""A TCP port in front of a server, with the faults of a network: it hangs, at once or after so many bytes, or cuts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

_CHUNK_BYTES = 65_536

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class FaultyProxy:
    """While it stalls it still takes connections and bytes, as a host does that hangs, and passes nothing on.

    `left` are the bytes of answers that still come through; None is no bound. After them it hangs, or with `cuts` hangs
    up.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[asyncio.Task[None]] = set()
        self.left: int | None = None
        self.cuts = False

    def stall(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until an end closes it."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._flowing.wait()
            answers, back = await self._connect()
            pumps = [asyncio.create_task(one) for one in (self._ask(reader, back), self._answer(answers, writer))]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
                back.close()
        except (asyncio.CancelledError, ConnectionError):
            pass  # the proxy closes, or the server is away
        finally:
            writer.close()
            self._connections.discard(task)

    async def close(self) -> None:
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # an end that aborts has closed, too
            while data := await reader.read(_CHUNK_BYTES):
                await self._flowing.wait()
                await _write(writer, data)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._flowing.wait()
                if self.left is not None:
                    data = data[: self.left]
                    self.left -= len(data)
                await _write(writer, data)
                if self.left == 0:
                    if self.cuts:
                        return
                    await asyncio.Event().wait()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@asynccontextmanager
async def faulty_proxy(connect: Connect) -> AsyncIterator[tuple[FaultyProxy, int]]:
    """Forward a free port of 127.0.0.1 to what `connect` opens; yield the proxy and the port."""
    proxy = FaultyProxy(connect)
    server = await asyncio.start_server(proxy.forward, "127.0.0.1", 0)
    try:
        yield proxy, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
