"""The folder through which the worker and a check of a job's files talk, and the report that stays of it."""

import logging
import shlex

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
from tokenyard.core.training import RESULT_FILE, SPEC_FILE, attempts_folder
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.storage.blobs import BlobStore

_LOG = logging.getLogger(__name__)
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
            files={
                name: self._blobs.url_of(self._files.path(job.organization, file)) for name, file in job.files.items()
            },
            output_url=self._blobs.url_of(folder),
            limits=limits,
        )
        path = f"{folder}/{SPEC_FILE}"
        await self._blobs.write(path, msgspec.json.encode(spec))
        return f"{ENTRYPOINT} {shlex.quote(self._blobs.url_of(path))}"

    async def result(self, job: Job) -> CheckResult | None:
        """Return how the current run ended; None where it did not say so, or nothing that can be read."""
        try:
            return _RESULT.decode(await self._blobs.read(f"{_folder(job)}/{RESULT_FILE}"))
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            _LOG.error("the result of check %d of %s is malformed: %s", job.check_run, job.id, error)
            return None

    async def keep(self, job: Job, report: DataReport) -> None:
        """Leave the report where people look for it, written to be read."""
        data = msgspec.json.format(msgspec.json.encode(report), indent=2)
        await self._blobs.write(f"{attempts_folder(job.organization, job.id)}/{DATA_REPORT}", data)


def _folder(job: Job) -> str:
    return check_folder(job.organization, job.id, job.check_run)
