"""What a job leaves its tenant to read: a line for each step, in the columns of OpenAI's result files, and what came
of it all.
"""

import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.finetune.progress import JobProgress
from tokenyard.finetune.results.evaluation_file import evaluation_file
from tokenyard.finetune.results.leaving import LeftFile, LeftFiles
from tokenyard.finetune.states import JobState
from tokenyard.storage.blobs import BlobStore

FILENAME = "step_metrics.csv"
COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
    "full_valid_loss": "full_valid_loss",
    "full_valid_mean_token_accuracy": "full_valid_mean_token_accuracy",
}
"""By their names, from what of an event's data; what else a method measures follows under its own name."""
_NO_METRICS = ("total_steps", "epoch")


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
        if job.held_out is not None and ended.state is not JobState.EVALUATING:  # else it is written after that
            evaluation = evaluation_file(ended)
            ended, left = msgspec.structs.replace(ended, evaluation_file=evaluation.id), [*left, evaluation]
        return msgspec.structs.replace(progress, job=ended, also=await self._left.write(job, left) if left else None)


def result_file_id(job: Job) -> FileId:
    return FileId(f"file-{job.id.removeprefix('ftjob-')}")


def step_csv(metrics: Iterable[Mapping[str, object]]) -> bytes:
    """Return the file; of a step that was told twice, because an attempt was lost, what was told last."""
    steps = {step: each for each in metrics if isinstance(step := each.get("step"), int)}
    others = {name for each in steps.values() for name in each} - {*COLUMNS.values(), *_NO_METRICS}
    sources = COLUMNS | {name: name for name in sorted(others)}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(sources)
    for _, each in sorted(steps.items()):
        lines.writerow([each.get(source) for source in sources.values()])
    return text.getvalue().encode()
