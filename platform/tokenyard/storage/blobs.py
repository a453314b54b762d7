"""The blob store: files, datasets, job folders and adapters, on a local folder or an object store (fsspec).

Paths are `<kind>/<organization>/<id>...`: made by us from ids, never from a client's text.
"""

import asyncio
import posixpath
import re
from collections.abc import AsyncIterator, Callable
from typing import ParamSpec, TypeVar

import fsspec

from tokenyard.core.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")
_PATH = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+")
CHUNK_BYTES = 1024 * 1024


# Beside the driver's own retries: an object store that hangs must not hold a caller for minutes.
_S3_CONFIG = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}


class InvalidPath(ValueError):
    """A path that is not made of ids."""


class BlobStore:
    """Reads and writes whole blobs without blocking the event loop.

    Every method raises `Unavailable` where an object store does not answer, and OSError where a disk fails.
    """

    def __init__(self, url: str) -> None:
        """Take an fsspec URL such as `file:///data/blobs` or `s3://bucket/prefix`."""
        self._fs, self._root = fsspec.core.url_to_fs(url, **_options(url))
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
        partial = f"{target}.partial"
        size = 0
        file = await _in_thread(self._fs.open, partial, "wb")
        try:
            async for chunk in chunks:
                await _in_thread(file.write, chunk)
                size += len(chunk)
        except BaseException:
            await _in_thread(file.close)
            await _in_thread(self._fs.rm, partial)
            raise
        await _in_thread(file.close)
        await _in_thread(self._fs.mv, partial, target)
        return size

    async def read(self, path: str) -> bytes:
        """Return a whole small blob, or raise FileNotFoundError."""
        data: bytes = await _in_thread(self._fs.cat_file, self._full(path))
        return data

    async def read_stream(self, path: str) -> AsyncIterator[bytes]:
        """Yield a blob in chunks, or raise FileNotFoundError."""
        file = await _in_thread(self._fs.open, self._full(path), "rb")
        try:
            while chunk := await _in_thread(file.read, CHUNK_BYTES):
                yield chunk
        finally:
            await _in_thread(file.close)

    async def exists(self, path: str) -> bool:
        return bool(await _in_thread(self._fs.exists, self._full(path)))

    async def names(self, folder: str) -> list[str]:
        """Return the sorted names directly in `folder`, or an empty list where there is no such folder."""

        def listing() -> list[str]:
            try:
                entries = self._fs.ls(self._full(folder), detail=False)
            except FileNotFoundError:
                return []
            return sorted(posixpath.basename(entry.rstrip("/")) for entry in entries)

        return await _in_thread(listing)

    async def delete(self, path: str) -> None:
        """Delete a blob or a folder; deleting what is not there is fine."""

        def remove() -> None:
            if self._fs.exists(self._full(path)):
                self._fs.rm(self._full(path), recursive=True)

        await _in_thread(remove)

    def _full(self, path: str) -> str:
        return f"{self._root}/{_checked(path)}"


def _options(url: str) -> dict[str, object]:
    if url.startswith("file:"):
        return {"auto_mkdir": True}
    # Others write too: a listing kept from earlier would hide what they wrote.
    options: dict[str, object] = {"use_listings_cache": False}
    return options | {"config_kwargs": _S3_CONFIG} if url.startswith("s3:") else options


async def _in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except OSError:
        raise
    except Exception as error:  # each driver has errors of its own for a store that is away
        raise Unavailable("The file store does not answer right now. Please try again.") from error


def _checked(path: str) -> str:
    if not _PATH.fullmatch(path) or any(set(part) == {"."} for part in path.split("/")):
        raise InvalidPath(f"not a blob path: {path!r}")
    return path
