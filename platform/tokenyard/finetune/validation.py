"""The first step of a job: its files are read again, whole, before anything is spent on them."""

import msgspec

from tokenyard.core.ids import FileId
from tokenyard.finetune.dataset import InvalidDataset, check_dataset
from tokenyard.finetune.endings import fail
from tokenyard.finetune.files import file_path
from tokenyard.finetune.jobs import Job, JobError
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.progress import Note
from tokenyard.finetune.states import JobState
from tokenyard.storage.blobs import BlobStore


class Validation:
    """`validating_files` -> `queued`, or failed with the lines that are wrong."""

    def __init__(self, store: JobOperatorStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    async def advance(self, job: Job) -> Job:
        """Check the job's files.

        Raises:
            JobChanged: somebody else changed the job.
        """
        for file, param in ((job.training_file, "training_file"), (job.validation_file, "validation_file")):
            error = await self._problem(job, file, param) if file is not None else None
            if error is not None:
                return await fail(self._store, job, error)
        after = msgspec.structs.replace(job, state=JobState.QUEUED, deadline_ms=None)
        note = Note(message="Files validated, moving job to queued state", source="validated")
        return await self._store.save(job, after, notes=(note,))

    async def _problem(self, job: Job, file: FileId, param: str) -> JobError | None:
        try:
            await check_dataset(self._blobs.read_stream(file_path(job.organization, file)))
        except FileNotFoundError:
            return JobError(f"invalid_{param}", f"The file {file} is gone.", param)
        except InvalidDataset as error:
            return JobError(f"invalid_{param}", f"The file {file} cannot be used: {error}", param)
        return None
