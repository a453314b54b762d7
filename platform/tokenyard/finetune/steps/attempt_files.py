"""The folder through which the worker and a training attempt talk: a spec in, events and a result out."""

import logging

import msgspec

from tokenyard.core.adapters import AdapterRules
from tokenyard.core.models import BaseModel
from tokenyard.core.training import (
    BEGUN_FILE,
    EVENTS_FOLDER,
    PAUSE_FILE,
    RESUME_FOLDER,
    RESUME_POINT_FILE,
    LoraSettings,
    ResumePoint,
    TrainingEvent,
    TrainingResult,
    TrainingSpec,
    event_file,
    job_folder,
)
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.steps.runs import file_urls, read_result, write_spec
from tokenyard.finetune.steps.starting import start_folder
from tokenyard.storage.blobs import BlobStore

_LOG = logging.getLogger(__name__)
ENTRYPOINT = "python -m tokenyard_deployments.training.job"
MAX_EVENTS_AT_ONCE = 500
_EVENT = msgspec.json.Decoder(TrainingEvent)
_POINT = msgspec.json.Decoder(ResumePoint)
_RESULT = msgspec.json.Decoder(TrainingResult)


class AttemptFiles:
    def __init__(self, blobs: BlobStore, files: TrainingFiles) -> None:
        self._blobs = blobs
        self._files = files

    async def write_spec(self, job: Job, model: BaseModel, rules: AdapterRules, policy: TrainingPolicy) -> str:
        """Write the current attempt's spec; return the command that runs it. Nothing in it is a tenant's text."""
        assert job.hyperparameters is not None, "only what trains is submitted"
        folder = _folder(job)
        urls = file_urls(self._blobs, self._files, job)
        spec = TrainingSpec(
            job=job.id,
            attempt=job.attempt,
            organization=job.organization,
            base_model=model.id,
            base_model_path=model.path,
            training_url=urls["training_file"],
            validation_url=urls.get("validation_file"),
            output_url=self._blobs.url_of(folder),
            resume_url=job.resume_url,
            method=job.method,
            hyperparameters=job.hyperparameters,
            seed=job.seed,
            max_seq_length=model.context_length,
            max_lora_rank=rules.max_rank,
            start_url=None if job.starts_from is None else self._blobs.url_of(start_folder(job)),
            lora=job.lora
            or LoraSettings(rank=min(LoraSettings().rank, rules.max_rank), target_modules=rules.target_modules),
            quantization="nf4" if model.id in policy.quantized_models else None,
            resources=policy.resources,
        )
        return await write_spec(self._blobs, folder, spec, ENTRYPOINT)

    async def events(self, job: Job) -> list[TrainingEvent]:
        """Return the current attempt's events that were not taken yet, oldest first, a bounded number."""
        folder = _folder(job)
        names = await self._blobs.names(f"{folder}/{EVENTS_FOLDER}")
        numbers = sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal())
        fresh = [number for number in numbers if number > job.events_taken][:MAX_EVENTS_AT_ONCE]
        found = []
        for number in fresh:
            try:
                found.append(_EVENT.decode(await self._blobs.read(f"{folder}/{event_file(number)}")))
            except msgspec.MsgspecError as error:
                _LOG.error("event %d of attempt %d of %s is malformed: %s", number, job.attempt, job.id, error)
        return found

    async def result(self, job: Job) -> TrainingResult | None:
        """Return how the current attempt ended; None where it did not say so, or nothing that can be read."""
        return await read_result(self._blobs, _folder(job), _RESULT)

    async def has_started(self, job: Job) -> bool:
        """Tell whether the current attempt left any sign of life: its folder must not be used again."""
        return bool(await self._blobs.names(f"{_folder(job)}/{EVENTS_FOLDER}")) or await self.has_begun(job)

    async def has_begun(self, job: Job) -> bool:
        """Tell whether the current attempt's workers have room."""
        return await self._blobs.exists(f"{_folder(job)}/{BEGUN_FILE}")

    async def ask_to_pause(self, job: Job) -> None:
        """Ask the current attempt to end with its next step."""
        await self._blobs.write(f"{_folder(job)}/{PAUSE_FILE}", b"{}")

    async def newest_point(self, job: Job) -> tuple[str, ResumePoint] | None:
        """Return the job's last whole resume point and the URL of its attempt's folder.

        It is not always the newest attempt's: one that ends before its first point leaves none.
        """
        found = None
        for attempt in range(job.attempt, 0, -1):
            folder = job_folder(job.organization, job.id, attempt)
            point = await self._point(f"{folder}/{RESUME_FOLDER}")
            if point is not None and (found is None or point.step_number > found[1].step_number):
                found = self._blobs.url_of(folder), point
        return found

    async def drop_points(self, job: Job) -> None:
        """Delete the resume points of earlier attempts, but for that which the job goes on from."""
        for attempt in range(1, job.attempt):
            folder = job_folder(job.organization, job.id, attempt)
            if self._blobs.url_of(folder) != job.resume_url:
                await self._blobs.delete(f"{folder}/{RESUME_FOLDER}")

    async def _point(self, folder: str) -> ResumePoint | None:
        for name in reversed(await self._blobs.names(folder)):
            try:
                return _POINT.decode(await self._blobs.read(f"{folder}/{name}/{RESUME_POINT_FILE}"))
            except FileNotFoundError:  # half there, or half gone
                continue
            except msgspec.MsgspecError as error:
                _LOG.error("the resume point %s/%s is malformed: %s", folder, name, error)
        return None


def _folder(job: Job) -> str:
    return job_folder(job.organization, job.id, job.attempt)
