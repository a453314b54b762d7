"""Training that begins with the weights of a fine-tuned model: found when the job is created, copied before it trains.

The copy stands in the job's own folder, so the model may be deleted as soon as the job is queued.
"""

import hashlib
from typing import NamedTuple

import msgspec

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_FOLDER,
    MANIFEST_FILE,
    AdapterManifest,
    LoraSettings,
    adapter_digest,
    job_folder,
)
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import OwnAdapters, TrainableModels
from tokenyard.finetune.steps.going_live import hashed
from tokenyard.storage.blobs import BlobStore


class StartingPoint(NamedTuple):
    """A fine-tuned model or checkpoint: its proper name, its base, and what its adapter is."""

    name: str
    base: str
    lora: LoraSettings


class StartLost(ValueError):
    """The model is not there any more, or not whole; the message is for its tenant."""


class _AdapterConfig(msgspec.Struct, frozen=True):
    """What is used of an `adapter_config.json` of ours."""

    r: int
    lora_alpha: int
    target_modules: tuple[str, ...]
    use_rslora: bool = False


class StartingPoints:
    def __init__(self, adapters: OwnAdapters, blobs: BlobStore, models: TrainableModels) -> None:
        self._adapters = adapters
        self._blobs = blobs
        self._models = models

    async def find(self, organization: OrganizationId, name: str) -> StartingPoint | None:
        """Return the organization's live fine-tuned model, or checkpoint of one, of this name, or None.

        One whose base model is another by now, or whose files are gone, raises `InvalidRequest`.
        """
        found = await self._adapters.own_adapter(organization, name)
        if found is None:
            return None
        try:
            manifest = await _manifest(self._blobs, found.ref)
            config = await self._blobs.read(f"{found.ref.path}/{ADAPTER_CONFIG}")
        except (FileNotFoundError, StartLost) as lost:
            raise InvalidRequest(f"The files of the model `{name}` are gone.", param="model") from lost
        base = self._models.get(found.base)
        made_for = manifest.base_content_hash
        if base is not None and None not in (made_for, base.content_hash) and made_for != base.content_hash:
            raise InvalidRequest(f"The base of `{name}` has changed since it was trained.", param="model")
        said = msgspec.json.decode(config, type=_AdapterConfig)
        lora = LoraSettings(
            rank=said.r,
            alpha=said.lora_alpha,
            target_modules=tuple(sorted(said.target_modules)),
            use_rslora=said.use_rslora,
            start=found.ref,
        )
        return StartingPoint(found.ref.name, found.base, lora)


def start_folder(job: Job) -> str:
    """Return the folder whose `adapter` is the job's copy of the model that it starts from."""
    return job_folder(job.organization, job.id, 0)


async def copy_start(blobs: BlobStore, job: Job, start: AdapterRef) -> None:
    """Copy the model that the job starts from into its folder, manifest last; `StartLost` where that cannot be."""
    target = f"{start_folder(job)}/{ADAPTER_FOLDER}"
    if await blobs.exists(f"{target}/{MANIFEST_FILE}"):
        return
    try:
        manifest = await _manifest(blobs, start)
        for name, expected in sorted(manifest.files.items()):
            digest = hashlib.sha256()
            await blobs.write_stream(f"{target}/{name}", hashed(blobs.read_stream(f"{start.path}/{name}"), digest))
            if digest.hexdigest() != expected:
                raise StartLost(f"The files of the model {start.name} are damaged.")
    except FileNotFoundError:
        raise StartLost(f"The model {start.name} was deleted before the job began.") from None
    await blobs.write(f"{target}/{MANIFEST_FILE}", msgspec.json.encode(manifest))


async def _manifest(blobs: BlobStore, ref: AdapterRef) -> AdapterManifest:
    try:
        manifest = msgspec.json.decode(await blobs.read(f"{ref.path}/{MANIFEST_FILE}"), type=AdapterManifest)
    except msgspec.MsgspecError:
        raise StartLost(f"The files of the model {ref.name} are damaged.") from None
    if ref.digest != manifest.digest or manifest.digest != adapter_digest(manifest.files):
        raise StartLost(f"The files of the model {ref.name} are not what they were.")
    return manifest
