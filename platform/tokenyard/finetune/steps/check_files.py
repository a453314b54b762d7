"""The folder through which the worker and a check of a job's files talk, and the report that stays of it."""

import msgspec

from tokenyard.core.datasets.checking import (
    DATA_REPORT,
    CheckLimits,
    CheckResult,
    CheckSpec,
    DataReport,
    check_folder,
)
from tokenyard.core.models import BaseModel
from tokenyard.core.training import attempts_folder
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.finetune.steps.runs import file_urls, read_result, write_spec
from tokenyard.storage.blobs import BlobStore

ENTRYPOINT = "python -m tokenyard_deployments.training.data.job"
_RESULT = msgspec.json.Decoder(CheckResult)


class CheckFiles:
    def __init__(self, blobs: BlobStore, files: TrainingFiles) -> None:
        self._blobs = blobs
        self._files = files

    async def write_spec(self, job: Job, model: BaseModel, limits: CheckLimits) -> str:
        """Write the current run's spec; return the command that runs it. Nothing in it is a tenant's text."""
        folder = _folder(job)
        spec = CheckSpec(
            job=job.id,
            run=job.check_run,
            organization=job.organization,
            method=job.method,
            base_model_path=model.path,
            max_seq_length=model.context_length,
            files=file_urls(self._blobs, self._files, job),
            output_url=self._blobs.url_of(folder),
            limits=limits,
            hyperparameters=job.hyperparameters,
        )
        return await write_spec(self._blobs, folder, spec, ENTRYPOINT)

    async def result(self, job: Job) -> CheckResult | None:
        """Return how the current run ended; None where it did not say so, or nothing that can be read."""
        return await read_result(self._blobs, _folder(job), _RESULT)

    async def keep(self, job: Job, report: DataReport) -> None:
        """Leave the report where people look for it, written to be read."""
        data = msgspec.json.format(msgspec.json.encode(report), indent=2)
        await self._blobs.write(f"{attempts_folder(job.organization, job.id)}/{DATA_REPORT}", data)


def _folder(job: Job) -> str:
    return check_folder(job.organization, job.id, job.check_run)
