"""Replicas that hold adapters but no model: they check an adapter's manifest as a real one does."""

from collections.abc import Collection, Sequence

import msgspec

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.replica import AdapterRefused, AdapterUnfit, Replica, ReplicaLost
from tokenyard.core.training import MANIFEST_FILE, AdapterManifest
from tokenyard.storage.blobs import BlobStore

BASE_LOGPROBS = (-1.0, -2.0, -3.0)


class AdapterReplicas:
    """One replica of every model. `present`, `lost` and `full` make it fail, and `unfit` says why no adapter fits.

    `shift` is what an adapter changes.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.present = True
        self.lost = False
        self.full = False
        self.unfit = ""
        self.shift = 0.5
        self.loaded: set[str] = set()
        self.called_for: set[str] = set()

    async def of(self, model: str) -> Sequence[Replica]:
        return [Replica("replica-1", model, "http://replica-1")] if self.present else []

    async def call_for(self, models: Collection[str]) -> None:
        self.called_for.update(models)

    async def load(self, replica: Replica, adapter: AdapterRef) -> None:
        self._answer()
        manifest = msgspec.json.decode(await self._blobs.read(f"{adapter.path}/{MANIFEST_FILE}"), type=AdapterManifest)
        if self.unfit:
            raise AdapterUnfit(self.unfit)
        if self.full or manifest.digest != adapter.digest:
            raise AdapterRefused("the adapter was not taken")
        self.loaded.add(adapter.name)

    async def canary(self, url: str, adapter: str | None, prompt: str) -> Sequence[float]:
        self._answer()
        if adapter is None:
            return BASE_LOGPROBS
        if adapter not in self.loaded:
            raise AdapterRefused("the adapter is not loaded")
        return [value - self.shift for value in BASE_LOGPROBS]

    def _answer(self) -> None:
        if self.lost:
            raise ReplicaLost("the replica is away")
