"""A zip file of which the same content has the same bytes, written a part at a time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import msgspec

_BEGINNING = (1980, 1, 1, 0, 0, 0)  # of all dates that such files know
_UNIX = 3
_READABLE = 0o644 << 16


class Member:
    """One file in it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def write(self, *parts: bytes) -> None:
        """Compress in a thread: a large part would hold up whoever else the process serves."""
        await asyncio.to_thread(self._file.write, b"".join(parts))


class Archive:
    def __init__(self, file: IO[bytes]) -> None:
        self._zip = ZipFile(file, "w")

    @asynccontextmanager
    async def member(self, name: str) -> AsyncIterator[Member]:
        """Begin a file, and end it; one is open at a time."""
        info = ZipInfo(name, _BEGINNING)
        info.compress_type, info.create_system, info.external_attr = ZIP_DEFLATED, _UNIX, _READABLE
        with self._zip.open(info, "w", force_zip64=True) as file:
            yield Member(file)

    async def add_json(self, name: str, content: Any) -> None:
        async with self.member(name) as member:
            await member.write(msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=1), b"\n")

    async def add_lines(self, name: str, parts: AsyncIterator[Sequence[bytes]]) -> None:
        async with self.member(name) as member:
            async for lines in parts:
                await member.write(*lines)

    def close(self) -> None:
        self._zip.close()
