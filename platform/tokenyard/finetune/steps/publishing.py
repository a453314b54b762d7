"""Publishes an adapter: registered, copied with its hashes checked, manifest last, proven, made live."""

import hashlib
from collections.abc import AsyncIterator

import msgspec

from tokenyard.core.adapters import AdapterNotAllowed, AdapterRef
from tokenyard.core.errors import Conflict, InvalidRequest, QuotaExceeded
from tokenyard.core.training import (
    ADAPTER_FOLDER,
    MANIFEST_FILE,
    AdapterManifest,
    adapter_digest,
    check_adapter_files,
    job_folder,
)
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.ports import AdapterLives, TrainableModels
from tokenyard.finetune.progress import JobProgress, fail, unchanged, wait_for
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.finetune.steps.canary import CanaryCheck, CanaryFailed, NoReplica
from tokenyard.storage.blobs import BlobStore

_CHECK_FAILED = "model_check_failed"


class UnusableAdapter(ValueError):
    """What training left behind is not an adapter we may serve."""


class Publishing:
    """`checking` -> `settling`. Every step may be repeated after a death in between."""

    def __init__(
        self, *, blobs: BlobStore, adapters: AdapterLives, canary: CanaryCheck, models: TrainableModels
    ) -> None:
        self._blobs = blobs
        self._adapters = adapters
        self._canary = canary
        self._models = models

    async def advance(self, job: Job) -> JobProgress:
        try:
            await self._make_live(job)
        except NoReplica as missing:
            return wait_for(job, str(missing))
        except (UnusableAdapter, CanaryFailed) as refused:
            return fail(job, JobError(_CHECK_FAILED, str(refused)))
        except QuotaExceeded as refused:
            return fail(job, JobError(refused.code or _CHECK_FAILED, refused.message))
        except (InvalidRequest, Conflict) as refused:
            return fail(job, JobError(_CHECK_FAILED, refused.message))
        after = msgspec.structs.replace(job, state=JobState.SETTLING, outcome=JobOutcome.SUCCEEDED, waits_for=None)
        return JobProgress(after)

    async def _make_live(self, job: Job) -> None:
        name = job.model_name
        assert name is not None, "a job is checked only after it has an adapter"
        path, fence = f"adapters/{job.organization}/{name.id}", unchanged(job)
        source = f"{job_folder(job.organization, job.id, job.attempt)}/{ADAPTER_FOLDER}"
        manifest = await self._manifest(job, source)
        await self._adapters.register(
            job.organization,
            project=job.project,
            name=name,
            path=path,
            digest=manifest.digest,
            size=sum([await self._blobs.size(f"{source}/{name}") for name in manifest.files]),
            job=job.id,
            actor=job.key,
            fence=fence,
        )
        await self._copy(manifest, source, path)
        ref = AdapterRef(id=name.id, name=str(name), path=path, digest=manifest.digest)
        await self._canary.check(job.model, ref)
        await self._adapters.promote(job.organization, name.id, fence=fence)

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

    async def _manifest(self, job: Job, source: str) -> AdapterManifest:
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
        if job.digest is not None and manifest.digest != job.digest:
            raise UnusableAdapter("The trained model is not the one that training reported.")
        if manifest.rank > model.max_lora_rank:
            raise UnusableAdapter(f"The rank {manifest.rank} is above {model.max_lora_rank}, which replicas take.")
        return manifest


async def hashed(chunks: AsyncIterator[bytes], digest: "hashlib._Hash") -> AsyncIterator[bytes]:
    """Pass chunks on, and feed `digest` with them."""
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
