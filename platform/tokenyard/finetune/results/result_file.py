"""What a job leaves its tenant to read: what each step measured, and what came of it all."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Integration, Job, WandbSettings
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.finetune.progress import JobProgress, Note
from tokenyard.finetune.results.evaluation_file import evaluation_file
from tokenyard.finetune.results.leaving import LeftFile, LeftFiles
from tokenyard.finetune.results.step_files import StepMetrics, logged_steps, step_csv, tensorboard_events
from tokenyard.finetune.results.wandb_run import WandbRun, wandb_file
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
        ended, left, notes = progress.job, list[LeftFile](), list[Note]()
        if metrics := await self._store.metrics(job.id):
            steps = LeftFile(result_file_id(job), FILENAME, step_csv(metrics))
            ended, left = msgspec.structs.replace(ended, result_file=steps.id), [steps]
            if Integration.TENSORBOARD in job.integrations:
                content = await asyncio.to_thread(tensorboard_events, metrics)
                events = LeftFile(FileId(f"{steps.id}-tensorboard"), _tensorboard_filename(job), content)
                ended, left = msgspec.structs.replace(ended, tensorboard_file=events.id), [*left, events]
            if job.wandb is not None:
                try:
                    run = await self._wandb_run(job, job.wandb, metrics)
                    ended, left = msgspec.structs.replace(ended, wandb_file=run.id), [*left, run]
                except Unavailable as why:
                    notes.append(Note(message=str(why), level="warn", source="wandb"))
        if job.held_out is not None and ended.state is not JobState.EVALUATING:  # else it is written after that
            evaluation = evaluation_file(ended)
            ended, left = msgspec.structs.replace(ended, evaluation_file=evaluation.id), [*left, evaluation]
        also = await self._left.write(job, left) if left else None
        return msgspec.structs.replace(progress, job=ended, notes=(*progress.notes, *notes), also=also)

    async def _wandb_run(self, job: Job, settings: WandbSettings, metrics: Sequence[StepMetrics]) -> LeftFile:
        set_to = {} if job.hyperparameters is None else msgspec.to_builtins(job.hyperparameters)
        config = {"model": job.model, "method": job.method, "seed": job.seed, **set_to}
        steps = logged_steps(metrics)
        run = WandbRun(job=job.id, base_model=job.model, settings=settings, config=config, steps=steps)
        return LeftFile(FileId(f"{result_file_id(job)}-wandb"), f"run-{job.id}.wandb", await wandb_file(run))


def result_file_id(job: Job) -> FileId:
    return FileId(f"file-{job.id.removeprefix('ftjob-')}")


def _tensorboard_filename(job: Job) -> str:
    """Return a name by whose beginning TensorBoard knows its files."""
    return f"events.out.tfevents.{job.created_at_ms // 1000}.{job.id}"
