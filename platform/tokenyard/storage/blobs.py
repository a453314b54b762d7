"""The blob store: files, datasets, job folders and adapters, on a local folder or an object store (fsspec).

Paths are `<kind>/<organization>/<id>...`: made by us from ids, never from a client's text.
"""

import asyncio
import posixpath
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

import fsspec

from tokenyard.core.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")
_PATH = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+")
CHUNK_BYTES = 1024 * 1024
CALLS_AT_ONCE = 16
CALL_LIMIT_S = 60.0
_UNFINISHED = ".partial"

# Beside the driver's own retries: an object store that hangs must not hold a caller for minutes.
_S3_CONFIG = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}


class InvalidPath(ValueError):
    """A path that is not made of ids."""


class BlobStore:
    """Reads and writes whole blobs without blocking the event loop.

    It has threads of its own, so a store that hangs takes none from others. Every method raises `Unavailable` where a
    store does not answer, at the latest after `CALL_LIMIT_S` for each megabyte, and OSError where a disk fails.
    """

    def __init__(self, url: str) -> None:
        """Take an fsspec URL such as `file:///data/blobs` or `s3://bucket/prefix`."""
        self._fs, self._root = fsspec.core.url_to_fs(url, **_options(url))
        self._local = url.startswith("file:")
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, "blobs")
        self.url = url.rstrip("/")

    def url_of(self, path: str) -> str:
        """Return the fsspec URL of `path`, for code that runs elsewhere."""
        return f"{self.url}/{_checked(path)}"

    async def write(self, path: str, data: bytes) -> None:
        """Write a small blob in one go; it appears whole or not at all."""

        async def once() -> AsyncIterator[bytes]:
            yield data

        await self.write_stream(path, once())

    async def write_stream(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        """Write a blob from chunks; return its size in bytes. It appears whole or not at all."""
        target = self._full(path)
        # An object appears as its last part is taken; a file would as its first byte is.
        place = f"{target}.{uuid4().hex}{_UNFINISHED}" if self._local else target
        size = 0
        file = await self._call(self._fs.open, place, "wb")
        try:
            async for chunk in chunks:
                await self._call(file.write, chunk)
                size += len(chunk)
            await self._call(file.close)
            if self._local:
                await self._call(self._fs.mv, place, target)
        except BaseException:
            await self._call(self._drop, file, place)
            raise
        return size

    def _drop(self, file: Any, place: str) -> None:
        """Leave nothing of a file that was not written to its end."""
        if self._local:
            file.close()
            self._fs.rm(place)
        elif not file.closed:
            file.discard()
            file.closed = True  # otherwise it would be put into the store as it is dropped

    async def read(self, path: str) -> bytes:
        """Return a whole small blob, or raise FileNotFoundError."""
        data: bytes = await self._call(self._fs.cat_file, self._full(path))
        return data

    async def read_stream(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield a blob in chunks, or raise FileNotFoundError."""
        file = await self._call(self._fs.open, self._full(path), "rb")
        try:
            while chunk := await self._call(file.read, CHUNK_BYTES):
                yield chunk
        finally:
            await self._call(file.close)

    async def size(self, path: str) -> int:
        """Return a blob's size in bytes, or raise FileNotFoundError."""
        return int(await self._call(self._fs.size, self._full(path)))

    async def exists(self, path: str) -> bool:
        return bool(await self._call(self._fs.exists, self._full(path)))

    async def names(self, folder: str) -> list[str]:
        """Return the sorted names directly in `folder`, or an empty list where there is no such folder."""

        def listing() -> list[str]:
            try:
                entries = self._fs.ls(self._full(folder), detail=False)
            except FileNotFoundError:
                return []
            found = (posixpath.basename(entry.rstrip("/")) for entry in entries)
            return sorted(name for name in found if not name.endswith(_UNFINISHED))

        return await self._call(listing)

    async def delete(self, path: str) -> None:
        """Delete a blob or a folder; deleting what is not there is fine."""

        def remove() -> None:
            if self._fs.exists(self._full(path)):
                self._fs.rm(self._full(path), recursive=True)

        await self._call(remove)

    async def _call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                work = partial(call, *args, **kwargs)
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise _away() from error
        except OSError:
            raise
        except Exception as error:  # each driver has errors of its own for a store that is away
            raise _away() from error

    def _full(self, path: str) -> str:
        return f"{self._root}/{_checked(path)}"


def _options(url: str) -> dict[str, object]:
    if url.startswith("file:"):
        return {"auto_mkdir": True}
    # Others write too: a listing kept from earlier would hide what they wrote.
    options: dict[str, object] = {"use_listings_cache": False}
    return options | {"config_kwargs": _S3_CONFIG} if url.startswith("s3:") else options


def _away() -> Unavailable:
    return Unavailable("The file store does not answer right now. Please try again.")


def _checked(path: str) -> str:
    if not _PATH.fullmatch(path) or any(set(part) == {"."} for part in path.split("/")):
        raise InvalidPath(f"not a blob path: {path!r}")
    return path
