"""Published adapters in the blob store, a folder or `s3://`, as a replica reads them. Every call blocks."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from tokenyard_deployments.serving.adapters.bounded_calls import GivenUp

MANIFEST_MAX_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
# An object store that hangs keeps a thread for no longer than this times its driver's few retries.
_S3_CONFIG = {"connect_timeout": 5, "read_timeout": 15, "retries": {"max_attempts": 1}}


class StoreFails(OSError):
    """The blob store does not answer as it should; it may do so later."""


class PublishedAdapters:
    """Every call raises FileNotFoundError where there is no such file, and another OSError where the store fails."""

    def __init__(self, blob_url: str) -> None:
        """Take an fsspec URL such as `file:///data/blobs` or `s3://bucket/prefix`."""
        # Others write too: a listing kept from earlier would hide what they wrote.
        options: dict[str, object] = {"use_listings_cache": False, "config_kwargs": _S3_CONFIG}
        self._fs, self._root = fsspec.core.url_to_fs(blob_url, **(options if blob_url.startswith("s3:") else {}))

    def read(self, path: str) -> bytes:
        """Return the beginning of a file, which is all of one within `MANIFEST_MAX_BYTES`."""
        with _store_errors():
            data: bytes = self._fs.cat_file(f"{self._root}/{path}", end=MANIFEST_MAX_BYTES)
            return data

    def size(self, path: str) -> int:
        with _store_errors():
            return int(self._fs.size(f"{self._root}/{path}"))

    def copy(self, path: str, target: Path, size: int, check: Callable[[], None]) -> str:
        """Write the `size` bytes of a file to `target` and return their SHA-256; `check` is called now and then."""
        digest, left = hashlib.sha256(), size
        with _store_errors(), self._fs.open(f"{self._root}/{path}", "rb") as remote, target.open("wb") as local:
            while left and (chunk := remote.read(min(left, _CHUNK_BYTES))):
                check()
                left -= len(chunk)
                digest.update(chunk)
                local.write(chunk)
        if left:
            raise StoreFails(f"{path} ended {left} bytes early")
        return digest.hexdigest()


@contextmanager
def _store_errors() -> Iterator[None]:
    """Each driver has errors of its own for a store that is away."""
    try:
        yield
    except (OSError, GivenUp):
        raise
    except Exception as error:
        raise StoreFails(f"{type(error).__name__}: {error}") from error
