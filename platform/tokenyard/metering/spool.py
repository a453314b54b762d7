"""Keeps items on the local disk while Redis is away; they outlive this process.

Format: JSON lines in small files, named so that the oldest comes first. A process writes only to a file of its own,
under an exclusive lock, and syncs it before it says that an item is kept. Files that nobody has locked are replayed by
whichever process finds them, so what a dead process left is not lost.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import msgspec

_LOG = logging.getLogger(__name__)
MAX_BYTES = 64 * 1024 * 1024
FILE_BYTES = 1024 * 1024  # a replay reads one file at a time, so this bounds its memory

Item = TypeVar("Item", bound=msgspec.Struct)
Send = Callable[[Sequence[Item]], Awaitable[None]]


class Spool(Generic[Item]):
    """A folder of items that Redis does not have yet. Spools of another `kind` need another folder."""

    def __init__(self, folder: Path, kind: type[Item], *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(kind)
        self._bytes = 0
        self._file: BinaryIO | None = None
        self._unwritten: list[Item] = []
        self._disk_fails = False
        self._lock = asyncio.Lock()

    @property
    def full(self) -> bool:
        """Whether new work must be refused: the cap is reached, or the disk takes nothing."""
        return self._bytes >= self._max_bytes or self._disk_fails

    @property
    def empty(self) -> bool:
        """Whether nothing waits, as far as this process knows."""
        return not (self._bytes or self._unwritten or self._disk_fails)

    async def append(self, items: Sequence[Item]) -> None:
        """Keep `items` on disk. If the disk fails they are kept in memory, and `full` says so.

        They are kept beyond the cap too: only work already let in still comes, and it must not be lost.
        """
        self._unwritten += items
        await self.flush()

    async def flush(self) -> None:
        """Write what is not on disk yet; items that come together share one sync."""
        # A caller may be cancelled, the thread that writes may not: it must end before anybody writes again.
        await asyncio.shield(self._flush())

    async def _flush(self) -> None:
        async with self._lock:
            batch = list(self._unwritten)
            if not batch:
                return
            try:
                await asyncio.to_thread(self._write, batch)
            except OSError as error:
                self._disk_fails = True
                _LOG.error("the spool %s cannot be written, %d items wait: %s", self._folder, len(batch), error)
            else:
                self._disk_fails = False
                del self._unwritten[: len(batch)]

    async def replay(self, send: Send[Item], go_on: Callable[[], bool] = lambda: True) -> None:
        """Hand everything to `send`, file by file while `go_on`; a file is deleted only when `send` took all of it.

        Raises:
            whatever `send` raises: its items stay, and are sent again next time.
        """
        await self.close()
        await self._replay_unwritten(send)
        try:
            for path in await asyncio.to_thread(_files, self._folder):
                if not go_on():
                    break
                file = await asyncio.to_thread(_open_unlocked, path)
                if file is not None:
                    with file:
                        await self._replay_file(path, file, send)
        finally:
            async with self._lock:
                self._bytes = await asyncio.to_thread(_size, self._folder)

    async def close(self) -> None:
        """End this process's file, so that anybody may replay it."""
        await self.flush()
        async with self._lock:
            await asyncio.to_thread(self._end_file)

    async def _replay_unwritten(self, send: Send[Item]) -> None:
        if not self._unwritten:
            return
        batch, self._unwritten = self._unwritten, []
        try:
            await send(batch)
        except BaseException:
            self._unwritten = batch + self._unwritten
            raise
        self._disk_fails = bool(self._unwritten)

    async def _replay_file(self, path: Path, file: BinaryIO, send: Send[Item]) -> None:
        items, damaged = await asyncio.to_thread(self._read, file)
        await send(items)
        if damaged:
            _LOG.error("%d unreadable items were left in %s.damaged", damaged, path)
            await asyncio.to_thread(path.rename, path.with_suffix(".damaged"))
        else:
            await asyncio.to_thread(path.unlink)

    def _write(self, batch: Sequence[Item]) -> None:
        if self._file is None:
            self._file = _create(self._folder)
        lines = b"".join(self._encoder.encode(item) + b"\n" for item in batch)
        try:
            if self._file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, "the disk took only a part")
            os.fsync(self._file.fileno())
        except OSError:
            self._end_file()  # a torn line ends this file; the batch goes whole into the next one
            raise
        self._bytes += len(lines)
        if self._file.tell() >= FILE_BYTES:
            self._end_file()

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, file: BinaryIO) -> tuple[list[Item], int]:
        # What follows the last line end was torn by a crash before it was synced: nobody was told that it is kept.
        *lines, _torn = file.read().split(b"\n")
        items, damaged = [], 0
        for line in lines:
            try:
                items.append(self._decoder.decode(line))
            except msgspec.MsgspecError:
                damaged += 1
        return items, damaged


def _create(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}.new"
    file = path.open("xb", buffering=0)
    fcntl.flock(file, fcntl.LOCK_EX)
    path.rename(path.with_suffix(".jsonl"))  # only now, or another process might take it for a dead one's
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return file


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def _size(folder: Path) -> int:
    total = 0
    for path in _files(folder):
        with contextlib.suppress(FileNotFoundError):  # another process replayed it just now
            total += path.stat().st_size
    return total


def _open_unlocked(path: Path) -> BinaryIO | None:
    """Open and lock a file; None where another process has it, or had it and deleted it."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    if not path.exists():
        file.close()
        return None
    return file
