"""Brings a published adapter to the local disk and proves that it is the one that was asked for."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import fsspec
import msgspec

from tokenyard.core.adapters import AdapterNotAllowed, AdapterRef
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import LoraSpec
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST_FILE, AdapterManifest, adapter_digest
from tokenyard_deployments.serving.adapters.downloads import Downloads

_MAX_BYTES = 4 << 30
_CHUNK_BYTES = 1 << 20


class AdapterRejected(InvalidRequest):
    """The adapter is missing, damaged, or not one that this model can serve. Asking again cannot help."""

    code = "adapter_rejected"


class AdapterFiles:
    """Local copies, one folder for each name and content. A folder that is there is complete and checked."""

    def __init__(
        self, blob_url: str, folder: Path, model: str, lora: LoraSpec, *, downloads: Downloads | None = None
    ) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(blob_url)
        self._folder = folder
        self._model = model
        self._lora = lora
        self._downloads = downloads or Downloads()
        folder.mkdir(parents=True, exist_ok=True)

    async def fetch(self, adapter: AdapterRef) -> Path:
        """Return the local folder of `adapter`.

        Raises:
            AdapterRejected: not there, not what its digest says, or not servable.
            OSError: the blob store cannot be read now; `StoreHangs` and TimeoutError are two of them.
        """
        if not adapter.well_formed:
            raise AdapterRejected(f"adapter {adapter.name}: malformed path or digest")
        return await self._downloads.run(adapter.name, partial(self._fetch, adapter))

    async def delete(self, path: Path) -> None:
        """Delete a local copy that no engine refers to any more."""
        await asyncio.to_thread(shutil.rmtree, path, True)

    def _fetch(self, adapter: AdapterRef, check: Callable[[], None]) -> Path:
        target = self._folder / hashlib.sha256(f"{adapter.name} {adapter.digest}".encode()).hexdigest()
        if target.is_dir():
            return target
        unfinished = self._folder / f".{target.name}-{uuid4().hex}"
        unfinished.mkdir()
        try:
            manifest = self._manifest(adapter)
            for name, expected in manifest.files.items():
                self._download(f"{adapter.path}/{name}", unfinished / name, expected, check)
            self._check_config(adapter, unfinished / ADAPTER_CONFIG)
            check()
            os.rename(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return target

    def _manifest(self, adapter: AdapterRef) -> AdapterManifest:
        try:
            data = self._fs.cat_file(f"{self._root}/{adapter.path}/{MANIFEST_FILE}")
            manifest = msgspec.json.decode(data, type=AdapterManifest)
        except FileNotFoundError:
            raise AdapterRejected(f"adapter {adapter.name} is not published at {adapter.path}") from None
        except msgspec.MsgspecError as error:
            raise AdapterRejected(f"adapter {adapter.name} has no readable manifest: {error}") from error
        if manifest.digest != adapter.digest or adapter_digest(manifest.files) != adapter.digest:
            raise AdapterRejected(f"adapter {adapter.name} is not the one with digest {adapter.digest}")
        if set(manifest.files) != {ADAPTER_WEIGHTS, ADAPTER_CONFIG}:
            raise AdapterRejected(f"adapter {adapter.name} must hold {ADAPTER_WEIGHTS} and {ADAPTER_CONFIG} only")
        if manifest.base_model != self._model:
            raise AdapterRejected(f"adapter {adapter.name} was trained for {manifest.base_model}, not {self._model}")
        return manifest

    def _download(self, source: str, target: Path, expected: str, check: Callable[[], None]) -> None:
        digest, size = hashlib.sha256(), 0
        try:
            with self._fs.open(f"{self._root}/{source}", "rb") as remote, target.open("wb") as local:
                while chunk := remote.read(_CHUNK_BYTES):
                    check()
                    size += len(chunk)
                    if size > _MAX_BYTES:
                        raise AdapterRejected(f"{source} is over {_MAX_BYTES >> 30} GiB")
                    digest.update(chunk)
                    local.write(chunk)
        except FileNotFoundError:
            raise AdapterRejected(f"{source} is missing") from None
        if digest.hexdigest() != expected:
            raise AdapterRejected(f"{source} is not what its manifest says")

    def _check_config(self, adapter: AdapterRef, file: Path) -> None:
        try:
            config = msgspec.json.decode(file.read_bytes(), type=dict[str, object])
        except msgspec.MsgspecError as error:
            raise AdapterRejected(f"adapter {adapter.name}: {ADAPTER_CONFIG} cannot be read: {error}") from error
        try:
            self._lora.rules.check(config)
        except AdapterNotAllowed as refused:
            raise AdapterRejected(f"adapter {adapter.name}: {refused.message}") from refused
