"""Publishes a trained adapter: copied with its hashes checked, manifest last, registered, proven, made live."""

import hashlib
from collections.abc import AsyncIterator

import msgspec

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import Conflict, InvalidRequest
from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_FOLDER,
    ADAPTER_WEIGHTS,
    MANIFEST_FILE,
    AdapterManifest,
    adapter_digest,
    job_folder,
)
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.ports import AdapterLives, TrainableModels
from tokenyard.finetune.progress import JobProgress, fail, unchanged, wait_for
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.finetune.steps.canary import CanaryCheck, CanaryFailed, NoReplica
from tokenyard.storage.blobs import BlobStore

_FILES = {ADAPTER_WEIGHTS, ADAPTER_CONFIG}
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
        except (InvalidRequest, Conflict) as refused:
            return fail(job, JobError(_CHECK_FAILED, refused.message))
        after = msgspec.structs.replace(job, state=JobState.SETTLING, outcome=JobOutcome.SUCCEEDED, waits_for=None)
        return JobProgress(after)

    async def _make_live(self, job: Job) -> None:
        name = job.model_name
        assert name is not None, "a job is checked only after it has an adapter"
        path = f"adapters/{job.organization}/{name.id}"
        digest = await self._publish(job, path)
        fence = unchanged(job)
        await self._adapters.register(
            job.organization, project=job.project, name=name, path=path, digest=digest, job=job.id, fence=fence
        )
        await self._canary.check(job.model, AdapterRef(id=name.id, name=str(name), path=path, digest=digest))
        await self._adapters.promote(job.organization, name.id, fence=fence)

    async def _publish(self, job: Job, target: str) -> str:
        source = f"{job_folder(job.organization, job.id, job.attempt)}/{ADAPTER_FOLDER}"
        manifest = await self._manifest(job, source)
        if await self._blobs.exists(f"{target}/{MANIFEST_FILE}"):
            return manifest.digest
        for name, expected in sorted(manifest.files.items()):
            digest = hashlib.sha256()
            await self._blobs.write_stream(
                f"{target}/{name}", _hashed(self._blobs.read_stream(f"{source}/{name}"), digest)
            )
            if digest.hexdigest() != expected:
                raise UnusableAdapter("The trained model was damaged on its way.")
        await self._blobs.write(f"{target}/{MANIFEST_FILE}", msgspec.json.encode(manifest))
        return manifest.digest

    async def _manifest(self, job: Job, source: str) -> AdapterManifest:
        try:
            manifest = msgspec.json.decode(await self._blobs.read(f"{source}/{MANIFEST_FILE}"), type=AdapterManifest)
        except (FileNotFoundError, msgspec.MsgspecError) as error:
            raise UnusableAdapter("Training left no complete model.") from error
        model = self._models.get(job.model)
        if model is None or manifest.base_model != model.id:
            raise UnusableAdapter(f"The base model {job.model} is not served any more.")
        if set(manifest.files) != _FILES or manifest.digest != adapter_digest(manifest.files):
            raise UnusableAdapter("The trained model's manifest does not fit its files.")
        if job.digest is not None and manifest.digest != job.digest:
            raise UnusableAdapter("The trained model is not the one that training reported.")
        if manifest.rank > model.max_lora_rank:
            raise UnusableAdapter(f"The rank {manifest.rank} is above {model.max_lora_rank}, which replicas take.")
        return manifest


async def _hashed(chunks: AsyncIterator[bytes], digest: "hashlib._Hash") -> AsyncIterator[bytes]:
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
