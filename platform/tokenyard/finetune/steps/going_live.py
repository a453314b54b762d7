"""Makes what training left behind a model that can be called.

It is registered, copied with its hashes checked and the manifest last, proven, made live.
"""

import hashlib
from collections.abc import AsyncIterator

import msgspec

from tokenyard.core.adapters import AdapterNotAllowed, AdapterRef, FineTunedName
from tokenyard.core.training import MANIFEST_FILE, AdapterManifest, adapter_digest, check_adapter_files
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import AdapterLives, TrainableModels
from tokenyard.finetune.steps.canary import CanaryCheck
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Fence


class UnusableAdapter(ValueError):
    """What training left behind is not an adapter we may serve."""


class GoingLive:
    """Every step may be repeated after a death in between."""

    def __init__(
        self, *, blobs: BlobStore, adapters: AdapterLives, canary: CanaryCheck, models: TrainableModels
    ) -> None:
        self._blobs = blobs
        self._adapters = adapters
        self._canary = canary
        self._models = models

    async def bring(
        self,
        job: Job,
        name: FineTunedName,
        source: str,
        *,
        digest: str | None,
        fence: Fence,
        last_step: int | None = None,
    ) -> None:
        """Make the adapter in the folder `source` live as `name`; `digest` is what it must have, where that is known.

        Raises:
            UnusableAdapter, CanaryFailed, InvalidRequest, Conflict: it must not go live.
            QuotaExceeded: there is no room for it.
            NoReplica: none can prove it now.
        """
        path = f"adapters/{job.organization}/{name.adapter}"
        manifest = await self._manifest(job, source, digest)
        await self._adapters.register(
            job.organization,
            project=job.project,
            name=name,
            path=path,
            digest=manifest.digest,
            size=sum([await self._blobs.size(f"{source}/{file}") for file in manifest.files]),
            job=job.id,
            actor=job.key,
            last_step=last_step,
            fence=fence,
        )
        await self._copy(manifest, source, path)
        ref = AdapterRef(id=name.adapter, name=str(name), path=path, digest=manifest.digest)
        await self._canary.check(job.model, ref)
        await self._adapters.promote(job.organization, name.adapter, fence=fence)

    async def _copy(self, manifest: AdapterManifest, source: str, target: str) -> None:
        if await self._blobs.exists(f"{target}/{MANIFEST_FILE}"):
            return
        for name, expected in sorted(manifest.files.items()):
            digest = hashlib.sha256()
            await self._blobs.write_stream(
                f"{target}/{name}", hashed(self._blobs.read_stream(f"{source}/{name}"), digest)
            )
            if digest.hexdigest() != expected:
                raise UnusableAdapter("The trained model was damaged on its way.")
        await self._blobs.write(f"{target}/{MANIFEST_FILE}", msgspec.json.encode(manifest))

    async def _manifest(self, job: Job, source: str, digest: str | None) -> AdapterManifest:
        try:
            manifest = msgspec.json.decode(await self._blobs.read(f"{source}/{MANIFEST_FILE}"), type=AdapterManifest)
        except (FileNotFoundError, msgspec.MsgspecError) as error:
            raise UnusableAdapter("Training left no complete model.") from error
        model = self._models.get(job.model)
        if model is None or manifest.base_model != model.id:
            raise UnusableAdapter(f"The base model {job.model} is not served any more.")
        try:
            check_adapter_files(manifest.files.keys())
        except AdapterNotAllowed as refused:
            raise UnusableAdapter(refused.message) from refused
        if manifest.digest != adapter_digest(manifest.files):
            raise UnusableAdapter("The trained model's manifest does not fit its files.")
        if digest is not None and manifest.digest != digest:
            raise UnusableAdapter("The trained model is not the one that training reported.")
        if manifest.rank > model.max_lora_rank:
            raise UnusableAdapter(f"The rank {manifest.rank} is above {model.max_lora_rank}, which replicas take.")
        return manifest


async def hashed(chunks: AsyncIterator[bytes], digest: "hashlib._Hash") -> AsyncIterator[bytes]:
    """Pass chunks on, and feed `digest` with them."""
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
