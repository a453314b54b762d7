"""Keeps settlements on the local disk while Redis is away; they outlive this process.

Format: JSON lines, one settlement each, in files named at random. A process writes only to a file of its own, under
an exclusive lock, and syncs it before it says a settlement is kept. Files that nobody has locked are replayed by
whichever process finds them, so what a dead process left is not lost.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars

_LOG = logging.getLogger(__name__)
MAX_BYTES = 64 * 1024 * 1024


class Settlement(msgspec.Struct, frozen=True):
    """What ends one request: `event` is the encoded `Settled`, `tokens` what it really used."""

    organization: OrganizationId
    key: str
    cost: NanoDollars
    tokens: int
    event: bytes
    budgets: str


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Settlement)


class Spool:
    """A folder of settlements that Redis does not have yet."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._bytes = 0
        self._file: BinaryIO | None = None
        self._unwritten: list[Settlement] = []
        self._lock = asyncio.Lock()

    @property
    def full(self) -> bool:
        """Whether new work must be refused: the cap is reached, or the disk takes nothing."""
        return self._bytes >= self._max_bytes or bool(self._unwritten and not self._lock.locked())

    async def append(self, settlement: Settlement) -> None:
        """Keep `settlement` on disk. If the disk fails it is kept in memory, `full` says so, and `flush` tries again.

        It is kept beyond the cap too: only work already let in still comes, and it must not be lost.
        """
        self._unwritten.append(settlement)
        await self.flush()

    async def flush(self) -> None:
        """Write what is not on disk yet; settlements that come together share one sync."""
        async with self._lock:
            batch = list(self._unwritten)
            if not batch:
                return
            try:
                await asyncio.to_thread(self._write, batch)
            except OSError as error:
                _LOG.error("the spool %s cannot be written: %s", self._folder, error)
            else:
                del self._unwritten[: len(batch)]

    async def replay(self, send: Callable[[Sequence[Settlement]], Awaitable[None]]) -> None:
        """Hand every settlement on disk to `send`, file by file; a file is deleted only when `send` took all of it.

        Raises:
            whatever `send` raises: the file stays, and its settlements are sent again next time.
        """
        await self.close()
        try:
            for path in await asyncio.to_thread(_files, self._folder):
                file = await asyncio.to_thread(_open_unlocked, path)
                if file is not None:
                    try:
                        await self._replay_file(path, file, send)
                    finally:
                        file.close()
        finally:
            async with self._lock:
                self._bytes = await asyncio.to_thread(_size, self._folder)

    async def close(self) -> None:
        """End this process's file, so that anybody may replay it."""
        await self.flush()
        async with self._lock:
            await asyncio.to_thread(self._seal)

    async def _replay_file(
        self, path: Path, file: BinaryIO, send: Callable[[Sequence[Settlement]], Awaitable[None]]
    ) -> None:
        settlements, damaged = await asyncio.to_thread(_read, file)
        await send(settlements)
        if damaged:
            _LOG.error("%d unreadable settlements were left in %s.damaged", damaged, path)
            await asyncio.to_thread(path.rename, path.with_suffix(".damaged"))
        else:
            await asyncio.to_thread(path.unlink)

    def _write(self, batch: Sequence[Settlement]) -> None:
        if self._file is None:
            self._file = _create(self._folder)
        lines = b"".join(_ENCODER.encode(settlement) + b"\n" for settlement in batch)
        try:
            self._file.write(lines)
            os.fsync(self._file.fileno())
        except OSError:
            self._seal()  # a torn line ends this file; the batch goes whole into the next one
            raise
        self._bytes += len(lines)

    def _seal(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _create(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / f"{secrets.token_hex(8)}.jsonl").open("xb", buffering=0)
    fcntl.flock(file, fcntl.LOCK_EX)
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


def _read(file: BinaryIO) -> tuple[list[Settlement], int]:
    # What follows the last line end was torn by a crash before it was synced: nobody was told that it is kept.
    *lines, _torn = file.read().split(b"\n")
    settlements, damaged = [], 0
    for line in lines:
        try:
            settlements.append(_DECODER.decode(line))
        except msgspec.MsgspecError:
            damaged += 1
    return settlements, damaged
