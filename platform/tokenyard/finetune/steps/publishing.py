"""Publishes an adapter that is better than its base, or was asked for all the same.

It is registered, copied with its hashes checked and the manifest last, proven, made live.
"""

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
from tokenyard.finetune.progress import JobProgress, Note, fail, unchanged, wait_for
from tokenyard.finetune.results.held_out import HeldOut
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
        if job.held_out is not None and not job.held_out.is_better and not job.publish_if_worse:
            return _no_better(job, job.held_out)
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
        return JobProgress(after, _as_asked(job))

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


def _no_better(job: Job, found: HeldOut) -> JobProgress:
    """Discard a model that nobody wants; the work on it is done, and paid for."""
    message = (
        f"On the validation file the model is no better than its base: {found}. It is not published, and what was "
        "trained is charged. Check that the two files are of one kind, or train with other hyperparameters; to have "
        "such a model all the same, create the job with `publish_if_worse`."
    )
    refused = fail(job, JobError("no_improvement", message, "validation_file"))
    return JobProgress(msgspec.structs.replace(refused.job, trained_tokens=job.trained_tokens))


def _as_asked(job: Job) -> tuple[Note, ...]:
    if job.held_out is None or job.held_out.is_better:
        return ()
    message = f"The model is no better than its base ({job.held_out}); it is published because that was asked for"
    return (Note(message=message, level="warn", source="published if worse"),)


async def hashed(chunks: AsyncIterator[bytes], digest: "hashlib._Hash") -> AsyncIterator[bytes]:
    """Pass chunks on, and feed `digest` with them."""
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
