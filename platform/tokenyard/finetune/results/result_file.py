"""What a job leaves its tenant to read: what each step measured, and what came of it all."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Integration, Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.finetune.progress import JobProgress
from tokenyard.finetune.results.evaluation_file import evaluation_file
from tokenyard.finetune.results.leaving import LeftFile, LeftFiles
from tokenyard.finetune.results.step_files import step_csv, tensorboard_events
from tokenyard.finetune.states import JobState
from tokenyard.storage.blobs import BlobStore

FILENAME = "step_metrics.csv"


class ResultFile:
    """Writes the files as a job ends. They get into the list of files in the transaction that ends the job, and their
    ids follow from the job's: however often this is done again, there is one of each, and it is there.
    """

    def __init__(
        self,
        settle: Callable[[Job], Awaitable[JobProgress]],
        store: JobOperatorStore,
        files: TrainingFiles,
        blobs: BlobStore,
    ) -> None:
        self._settle = settle
        self._store = store
        self._left = LeftFiles(files, blobs)

    async def advance(self, job: Job) -> JobProgress:
        """Settle the job; where it made steps or was measured, with its result files."""
        progress = await self._settle(job)
        ended, left = progress.job, list[LeftFile]()
        if metrics := await self._store.metrics(job.id):
            steps = LeftFile(result_file_id(job), FILENAME, step_csv(metrics))
            ended, left = msgspec.structs.replace(ended, result_file=steps.id), [steps]
            if Integration.TENSORBOARD in job.integrations:
                content = await asyncio.to_thread(tensorboard_events, metrics)
                events = LeftFile(FileId(f"{steps.id}-tensorboard"), _tensorboard_filename(job), content)
                ended, left = msgspec.structs.replace(ended, tensorboard_file=events.id), [*left, events]
        if job.held_out is not None and ended.state is not JobState.EVALUATING:  # else it is written after that
            evaluation = evaluation_file(ended)
            ended, left = msgspec.structs.replace(ended, evaluation_file=evaluation.id), [*left, evaluation]
        return msgspec.structs.replace(progress, job=ended, also=await self._left.write(job, left) if left else None)


def result_file_id(job: Job) -> FileId:
    return FileId(f"file-{job.id.removeprefix('ftjob-')}")


def _tensorboard_filename(job: Job) -> str:
    """Return a name by whose beginning TensorBoard knows its files."""
    return f"events.out.tfevents.{job.created_at_ms // 1000}.{job.id}"
