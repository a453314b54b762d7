"""Clients that keep to no rule of HTTP: bare sockets that write what a test gives them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

LIMIT_S = 20.0


class RawConnection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.sent = 0

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        self.sent += len(data)

    async def send_for_ever(self, piece: bytes, *, limit: int, pause_s: float = 0.0) -> bool:
        """Send `piece` again and again; return whether the server closed before `limit` bytes were sent."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while self.sent < limit:
                    await self.send(piece)
                    # A closed connection takes bytes until its reset has arrived.
                    await asyncio.sleep(pause_s)
                    if self._reader.at_eof() or self._writer.is_closing():
                        return True
        except ConnectionError:
            return True
        return False

    async def rest(self) -> bytes:
        """Return all that the server says until it closes; a reset counts as that."""
        said = b""
        try:
            async with asyncio.timeout(LIMIT_S):
                while data := await self._reader.read(65_536):
                    said += data
        except ConnectionError:
            pass
        return said

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and JSON of the one answer after which the server closes."""
        head, _, body = (await self.rest()).partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        found = dict(header.split(": ", 1) for header in headers)
        return int(line.split()[1]), found, json.loads(body)

    async def until_answered(self) -> bytes:
        """Return the first bytes that the server says; it may say more."""
        async with asyncio.timeout(LIMIT_S):
            return await self._reader.read(65_536)


@asynccontextmanager
async def raw_connection(url: str, address: str = "127.0.0.1") -> AsyncIterator[RawConnection]:
    """Connect from `address`, which may be any of 127.0.0.0/8."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, local_addr=(address, 0))
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.transport.abort()
