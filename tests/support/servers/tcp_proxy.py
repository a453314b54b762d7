"""A TCP port in front of a server's Unix socket, which can stop passing anything on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK_BYTES = 65_536


class StallingProxy:
    """While it stalls it still takes connections and bytes, as a host does that hangs, and passes nothing on."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[asyncio.Task[None]] = set()

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
            upstream, back = await asyncio.open_unix_connection(self._socket)
            pumps = [asyncio.create_task(self._pump(*ends)) for ends in ((reader, back), (upstream, writer))]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
                back.close()
        except asyncio.CancelledError:
            pass  # the proxy closes
        finally:
            writer.close()
            self._connections.discard(task)

    async def close(self) -> None:
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # an end that aborts has closed, too


@asynccontextmanager
async def stalling_proxy(socket: str) -> AsyncIterator[tuple[StallingProxy, int]]:
    """Forward a free port of 127.0.0.1 to the Unix socket; yield the proxy and the port."""
    proxy = StallingProxy(socket)
    server = await asyncio.start_server(proxy.forward, "127.0.0.1", 0)
    try:
        yield proxy, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
