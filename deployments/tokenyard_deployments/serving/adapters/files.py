"""Brings a published adapter to the node's disk, and proves each time that it is the one that was asked for."""

import hashlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST_FILE, AdapterManifest, adapter_digest
from tokenyard_deployments.serving.adapters.bounded_calls import BoundedCalls, Check
from tokenyard_deployments.serving.adapters.disk_cache import DiskCache, HeldEntry
from tokenyard_deployments.serving.adapters.published import PublishedAdapters

_LOG = logging.getLogger(__name__)
MAX_BYTES = 4 << 30
_CHUNK_BYTES = 1 << 20
Found = TypeVar("Found", bytes, int)


class AdapterRejected(InvalidRequest):
    """The adapter is missing, damaged, or not one that this model can serve. Asking again cannot help."""

    code = "adapter_rejected"


class _Damaged(Exception):
    """What is on the disk is not what was put there."""


class AdapterFiles:
    """Adapters over one base model, which is known by its content: `base_content_hash`.

    They are what was published; whether the base model can serve them is for `FittingAdapters` to say.
    """

    def __init__(
        self,
        store: PublishedAdapters,
        cache: DiskCache,
        *,
        model: str,
        base_content_hash: str,
        reads: BoundedCalls | None = None,
        downloads: BoundedCalls | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._model = model
        self._base_content_hash = base_content_hash
        # Apart, so that a store that hangs does not keep anybody from what is on the disk.
        self._reads = reads or BoundedCalls("read")
        self._downloads = downloads or BoundedCalls("download")
        self.on_disk = 0
        self.downloaded = 0

    async def fetch(self, adapter: AdapterRef) -> HeldEntry:
        """Return the adapter's folder, which stays there until it is released.

        Raises:
            AdapterRejected: not there, not what its digest says, or for another base.
            OSError: it cannot be had now; `StoreHangs`, `StoreFails`, `CacheFull` and TimeoutError are some of them.
        """
        if not adapter.well_formed:
            raise AdapterRejected(f"adapter {adapter.name}: malformed path or digest")
        held = await self._reads.run(adapter.name, partial(self._from_disk, adapter), _release)
        if held is not None:
            self.on_disk += 1
            return held
        held = await self._downloads.run(adapter.name, partial(self._from_store, adapter), HeldEntry.release)
        self.downloaded += 1
        return held

    def _key(self, adapter: AdapterRef) -> str:
        # The same files over another base are another entry: of one it is known only that it is for its own.
        return hashlib.sha256(f"{self._base_content_hash} {adapter.digest}".encode()).hexdigest()

    def _from_disk(self, adapter: AdapterRef, check: Check) -> HeldEntry | None:
        held = self._cache.hold(self._key(adapter))
        if held is None:
            return None
        try:
            self._check_copy(adapter, held.folder, check)
        except _Damaged as error:
            _LOG.error("the copy of adapter %s is damaged and is fetched again: %s", adapter.name, error)
            self._cache.discard(held)
            return None
        except BaseException:
            held.release()
            raise
        return held

    def _check_copy(self, adapter: AdapterRef, folder: Path, check: Check) -> None:
        try:
            manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=AdapterManifest)
            found = {name: _sha256(folder / name, check) for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG)}
        except (FileNotFoundError, msgspec.MsgspecError) as error:
            raise _Damaged(str(error)) from error
        if adapter_digest(found) != adapter.digest:
            raise _Damaged("its files are not what their manifest says")
        self._check_manifest(adapter, manifest)

    def _from_store(self, adapter: AdapterRef, check: Check) -> HeldEntry:
        data = self._published(adapter, MANIFEST_FILE, self._store.read)
        try:
            manifest = msgspec.json.decode(data, type=AdapterManifest)
        except msgspec.MsgspecError as error:
            raise AdapterRejected(f"adapter {adapter.name} has no readable manifest: {error}") from error
        self._check_manifest(adapter, manifest)
        sizes = {name: self._published(adapter, name, self._store.size) for name in manifest.files}
        if sum(sizes.values()) > MAX_BYTES:
            raise AdapterRejected(f"adapter {adapter.name} is over {MAX_BYTES >> 30} GiB")

        def write(folder: Path) -> None:
            (folder / MANIFEST_FILE).write_bytes(data)
            for name, size in sizes.items():
                copied = self._store.copy(f"{adapter.path}/{name}", folder / name, size, check)
                if copied != manifest.files[name]:
                    raise AdapterRejected(f"{adapter.path}/{name} is not what its manifest says")

        return self._cache.fill(self._key(adapter), sum(sizes.values()) + len(data), write, check)

    def _published(self, adapter: AdapterRef, name: str, read: Callable[[str], Found]) -> Found:
        try:
            return read(f"{adapter.path}/{name}")
        except FileNotFoundError:
            raise AdapterRejected(f"adapter {adapter.name}: there is no {adapter.path}/{name}") from None

    def _check_manifest(self, adapter: AdapterRef, manifest: AdapterManifest) -> None:
        if manifest.digest != adapter.digest or adapter_digest(manifest.files) != adapter.digest:
            raise AdapterRejected(f"adapter {adapter.name} is not the one with digest {adapter.digest}")
        if set(manifest.files) != {ADAPTER_WEIGHTS, ADAPTER_CONFIG}:
            raise AdapterRejected(f"adapter {adapter.name} must hold {ADAPTER_WEIGHTS} and {ADAPTER_CONFIG} only")
        if manifest.base_content_hash is None:  # made before manifests said so
            if manifest.base_model != self._model:
                raise AdapterRejected(f"adapter {adapter.name} was trained for {manifest.base_model}")
        elif manifest.base_content_hash != self._base_content_hash:
            raise AdapterRejected(
                f"adapter {adapter.name} was trained for another base: for {manifest.base_model} with the content"
                f" {manifest.base_content_hash}, not {self._base_content_hash}"
            )


def _release(held: HeldEntry | None) -> None:
    if held is not None:
        held.release()


def _sha256(file: Path, check: Check) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            check()
            digest.update(chunk)
    return digest.hexdigest()
