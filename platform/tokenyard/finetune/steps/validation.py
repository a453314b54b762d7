"""The first step of a job: its files are read again, whole, before anything is spent on them."""

import msgspec

from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.methods.dataset import InvalidDataset, check_dataset
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.finetune.progress import JobProgress, Note, fail
from tokenyard.finetune.states import JobState
from tokenyard.finetune.steps.starting import StartLost, copy_start
from tokenyard.finetune.steps.taking_in import TakingIn
from tokenyard.storage.blobs import BlobStore


class JobValidation:
    """`validating_files` -> `queued`, or failed with the lines that are wrong; who brings an adapter trains nothing."""

    def __init__(self, files: TrainingFiles, blobs: BlobStore, taking_in: TakingIn) -> None:
        self._files = files
        self._blobs = blobs
        self._taking_in = taking_in

    async def advance(self, job: Job) -> JobProgress:
        if job.takes_in:
            return await self._taking_in.advance(job)
        for param, file in job.files.items():
            error = await self._problem(job, file, param)
            if error is not None:
                return fail(job, error)
        if job.starts_from is not None:
            try:
                await copy_start(self._blobs, job, job.starts_from)
            except StartLost as lost:
                return fail(job, JobError("model_not_found", str(lost), "model"))
        after = msgspec.structs.replace(job, state=JobState.QUEUED, deadline_ms=None)
        return JobProgress(after, (Note(message="Files validated, moving job to queued state", source="validated"),))

    async def _problem(self, job: Job, file: FileId, param: str) -> JobError | None:
        try:
            await check_dataset(self._blobs.read_stream(self._files.path(job.organization, file)))
        except FileNotFoundError:
            return JobError(f"invalid_{param}", f"The file {file} is gone.", param)
        except InvalidDataset as error:
            return JobError(f"invalid_{param}", f"The file {file} cannot be used: {error}", param)
        return None
