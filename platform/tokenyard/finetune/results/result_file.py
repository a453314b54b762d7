"""What a job leaves its tenant to read: a line for each step, in the columns of OpenAI's result files."""

import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import msgspec

from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.finetune.progress import JobProgress
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
    """Writes the file as a job ends. It gets into the list of files in the transaction that ends the job, and its id
    follows from the job's: however often this is done again, there is one, and it is there.
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
        self._files = files
        self._blobs = blobs

    async def advance(self, job: Job) -> JobProgress:
        """Settle the job; where it made steps, with its result file."""
        progress = await self._settle(job)
        metrics = await self._store.metrics(job.id)
        if not metrics:
            return progress
        file, content = result_file_id(job), step_csv(metrics)
        await self._blobs.write(self._files.path(job.organization, file), content)
        enter = partial(
            self._files.enter,
            job.organization,
            project=job.project,
            file=file,
            filename=FILENAME,
            purpose="fine-tune-results",
            size=len(content),
        )
        ended = msgspec.structs.replace(progress.job, result_file=file)
        return msgspec.structs.replace(progress, job=ended, also=enter)


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
