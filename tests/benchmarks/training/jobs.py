"""Jobs on a running installation: from asking to the first step, and from the last step to the first served token."""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from openai import OpenAI

from benchmarks.training.rows import write_rows
from support.servers.object_store import BUCKET, object_store
from support.servers.whole_stack import MODEL, Stack, private_environment, start, stop
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import BEGUN_FILE, RESULT_FILE, TrainingEvent, attempts_folder

ROWS, BATCH, ROUNDS, TENANTS = 24, 4, 3, 3
LIMIT_S = 600.0
LOOK_S = 0.05
ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Run:
    """One job; unix seconds. `steps` are the ends of its steps as training wrote them down."""

    client: OpenAI
    id: str
    folder: Path
    created_at: float
    begun_at: float = 0.0
    steps: list[float] = field(default_factory=list)
    result_at: float = 0.0
    succeeded_at: float = 0.0
    first_token_at: float = 0.0

    def look(self) -> bool:
        """Note what has happened since; tell whether the job has ended. What it left may go once it has."""
        self.begun_at = self.begun_at or _written_at(self.folder / BEGUN_FILE)
        if not self.result_at:
            self.steps = [one for file in sorted(self.folder.glob("events/*.json")) if (one := _step_end(file))]
            self.result_at = _written_at(self.folder / RESULT_FILE)
        job = self.client.fine_tuning.jobs.retrieve(self.id)
        if job.status not in ENDED:
            return False
        self.succeeded_at = time.time()
        assert job.status == "succeeded", job.error
        assert job.fine_tuned_model
        stream = self.client.chat.completions.create(
            model=job.fine_tuned_model, messages=[{"role": "user", "content": "Hello"}], max_tokens=8, stream=True
        )
        next(iter(stream))
        self.first_token_at = time.time()
        stream.close()
        return True


def measure(folder: Path) -> dict[str, float]:
    """Return medians of jobs one after the other, with the attempts' files in a folder, and of three at once."""
    stack = start(private_environment(folder))
    try:
        runs, figures = _one_after_the_other(stack, stack.data_dir / "blobs", ROUNDS)
        return figures | _side_by_side(
            stack, folder, statistics.median(run.first_token_at - run.created_at for run in runs)
        )
    finally:
        stop(stack)


def measure_s3(folder: Path) -> dict[str, float]:
    """Return how soon a model answers where the files lie in an object store."""
    with tempfile.TemporaryDirectory(prefix="tokenyard-s3-") as name, object_store(Path(name) / "s3") as s3:
        stack = start(private_environment(folder) | s3 | {"TOKENYARD_BLOB_URL": f"s3://{BUCKET}/blobs"})
        try:
            _, figures = _one_after_the_other(stack, Path(name) / "s3" / BUCKET / "blobs", 1)
        finally:
            stop(stack)
    return {f"{key}_s3": value for key, value in figures.items()}


def _one_after_the_other(stack: Stack, blobs: Path, rounds: int) -> tuple[list[Run], dict[str, float]]:
    organization, client = stack.tenant("bench")
    file = _upload(client, blobs.parent)
    runs = []
    for _ in range(rounds):
        runs.append(_created(client, file, organization, blobs))
        _until_ended(runs[-1:])
    spans = {
        "create_to_first_step_s": [run.steps[0] - run.created_at for run in runs],
        "create_to_worker_s": [run.begun_at - run.created_at for run in runs],
        "worker_to_first_step_s": [run.steps[0] - run.begun_at for run in runs],
        "last_step_to_first_token_s": [run.first_token_at - run.steps[-1] for run in runs],
        "last_step_to_result_s": [run.result_at - run.steps[-1] for run in runs],
        "result_to_succeeded_s": [run.succeeded_at - run.result_at for run in runs],
        "succeeded_to_first_token_s": [run.first_token_at - run.succeeded_at for run in runs],
    }
    return runs, {name: round(statistics.median(values), 2) for name, values in spans.items()}


def _side_by_side(stack: Stack, folder: Path, alone_s: float) -> dict[str, float]:
    """Return how long jobs of three organizations take that are asked for at once, and how many trained at a time."""
    tenants = [stack.tenant(f"bench-{number}") for number in range(TENANTS)]
    files = [_upload(client, folder) for _, client in tenants]
    blobs = stack.data_dir / "blobs"
    runs = [
        _created(client, file, organization, blobs) for (organization, client), file in zip(tenants, files, strict=True)
    ]
    _until_ended(runs)
    together_s = max(run.first_token_at for run in runs) - min(run.created_at for run in runs)
    at_once = max(sum(run.begun_at <= one.begun_at < run.result_at for run in runs) for one in runs)
    return {
        "job_s": round(alone_s, 1),
        "three_jobs_s": round(together_s, 1),
        "three_jobs_at_once": at_once,
        "three_jobs_speedup": round(TENANTS * alone_s / together_s, 2),
    }


def _upload(client: OpenAI, folder: Path) -> str:
    return client.files.create(file=write_rows(folder / "bench.jsonl", ROWS), purpose="fine-tune").id


def _created(client: OpenAI, file: str, organization: str, blobs: Path) -> Run:
    began = time.time()
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": BATCH}}},
    )
    attempts = attempts_folder(OrganizationId(organization), JobId(job.id))
    return Run(client, job.id, blobs / attempts / "1", began)


def _until_ended(runs: list[Run]) -> None:
    deadline, waiting = time.monotonic() + LIMIT_S, list(runs)
    while waiting:
        assert time.monotonic() < deadline, f"{len(waiting)} jobs did not end within {LIMIT_S:.0f} s"
        waiting = [run for run in waiting if not run.look()]
        time.sleep(LOOK_S)


def _step_end(file: Path) -> float | None:
    event = msgspec.json.decode(file.read_bytes(), type=TrainingEvent)
    return os.stat(file).st_mtime if event.type == "metrics" and "train_loss" in event.data else None


def _written_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
