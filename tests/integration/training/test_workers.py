"""Two workers train the same steps as one does, on every row once, and go on from where they were interrupted."""

import json
import math
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

pytest.importorskip("trl")
from safetensors.torch import load_file

from integration.training import test_ray_job as ray_job
from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import train
from support.ray_cluster.private_ray import Cluster
from tokenyard.clients.ray_jobs import RayJobs
from tokenyard.core.ids import JobId
from tokenyard.core.training import (
    ADAPTER_WEIGHTS,
    LoraSettings,
    RunState,
    TrainingSpec,
    TrainingStatus,
    submission_id,
)
from tokenyard_deployments.training.attempt import AttemptFolder

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

ROWS, BATCH, EPOCHS = 11, 5, 3  # no step divides by two, and an epoch's last one has one row
STEPS = EPOCHS * 3
WORKERS = 2
ROUNDING = 1e-4
"""What sums of floats in another order differ by, as a part of a loss."""


@pytest.fixture
async def jobs(cluster: Cluster) -> AsyncIterator[RayJobs]:
    async with aiohttp.ClientSession() as session:
        yield RayJobs(session, cluster.url, cluster.token_file)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def row(number: int, method: str) -> dict[str, Any]:
    question = {"role": "user", "content": "x" * (3 * number + 1)}
    answers = [{"role": "assistant", "content": f"{word} {number}"} for word in ("yes sir", "nope")]
    if method == "supervised":
        return {"messages": [question, answers[0]]}
    return {
        "input": {"messages": [question]},
        "preferred_output": answers[:1],
        "non_preferred_output": answers[1:],
    }


def spec_of(folder: Path, base_model: Path, method: str, *, attempt: int = 1, workers: int = WORKERS) -> TrainingSpec:
    file = folder / f"{method}.jsonl"
    file.write_text("".join(json.dumps(row(number, method)) + "\n" for number in range(ROWS)))
    plain = ray_job.spec_of(f"ftjob-{method}-{workers}", attempt, folder, base_model, file, epochs=EPOCHS)
    beta = None if method == "supervised" else 0.5
    wanted = msgspec.structs.replace(plain.hyperparameters, batch_size=BATCH, beta=beta)
    resources = msgspec.structs.replace(plain.resources, num_workers=workers)
    return msgspec.structs.replace(plain, method=method, hyperparameters=wanted, resources=resources)


def losses(folder: Path) -> list[float]:
    return [event.data["train_loss"] for event in ray_job.events_of(folder) if "total_steps" in event.data]


def apart(ours: Path, theirs: Path) -> float:
    """Return how far apart two adapters are, as a part of how far one has come from where it began."""
    first, second = (load_file(folder) for folder in (ours, theirs))
    moved = [name for name in first if "lora_B" in name]
    distance = sum(float((first[name] - second[name]).square().sum()) for name in moved)
    return math.sqrt(distance / sum(float(second[name].square().sum()) for name in moved))


@pytest.mark.parametrize("method", ["supervised", "dpo"])
async def test_two_workers_train_the_steps_of_one(jobs: RayJobs, base_model: Path, tmp_path: Path, method: str) -> None:
    two = spec_of(tmp_path, base_model, method)
    folder = await ray_job.start(jobs, two)
    one = spec_of(tmp_path, base_model, method, workers=1)
    alone = Path(train(one).root)
    ended = await ray_job.end_of(jobs, two)
    assert ended is RunState.SUCCEEDED, await jobs.logs(submission_id(two.job, two.attempt))

    result = ray_job.result_of(folder)
    ray_job.check_published(folder, result)
    expected = AttemptFolder(one.output_url).resume_point()
    assert expected is not None
    assert result.trained_tokens == expected.trained_tokens
    counts = json.loads((alone / "summary.json").read_bytes())
    assert result.trained_tokens == EPOCHS * counts["tokens_per_epoch"]
    assert len(losses(folder)) == STEPS
    assert losses(folder) == pytest.approx(losses(alone), rel=ROUNDING)
    for ours, theirs in zip(told(folder), told(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    last = f"checkpoints/step-{STEPS:08d}/{ADAPTER_WEIGHTS}"
    assert apart(folder / last, alone / last) < 0.01


def told(folder: Path) -> list[dict[str, float]]:
    """Return what is measured over the rows of a step or of the validation file, not over its passes."""
    names = ("train_reward_accuracy", "train_reward_margin", "train_reward_preferred", "full_valid_loss", "step")
    events = ray_job.events_of(folder)
    return [{name: event.data[name] for name in names if name in event.data} for event in events if event.data]


async def test_interrupted_and_paused_they_end_in_the_same_bytes(
    jobs: RayJobs, base_model: Path, tmp_path: Path
) -> None:
    """With dropout, so that each worker's own random state counts."""
    lora = LoraSettings(rank=4, alpha=8, dropout=0.3)

    def attempt(number: int, name: str) -> TrainingSpec:
        spec = spec_of(tmp_path / name, base_model, "supervised", attempt=number)
        longer = msgspec.structs.replace(spec.hyperparameters, n_epochs=4 * EPOCHS)
        return msgspec.structs.replace(spec, job=JobId(f"ftjob-{name}"), lora=lora, hyperparameters=longer)

    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = attempt(1, "whole")
    whole_folder = await ray_job.start(jobs, whole)
    assert await ray_job.end_of(jobs, whole) is RunState.SUCCEEDED, await jobs.logs(submission_id(whole.job, 1))

    first = attempt(1, "cut")
    folder = await ray_job.start(jobs, first)
    await ray_job.first_point(folder)
    for process in ray_job.drivers(first):
        os.kill(process.pid, signal.SIGKILL)
    assert await ray_job.end_of(jobs, first) is RunState.FAILED
    [point] = folder.glob("resume/*/point.json")
    assert {file.name for file in point.parent.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}

    second = attempt(2, "cut")
    folder = await ray_job.start(jobs, second)
    (folder / "pause").write_bytes(b"{}")
    await ray_job.end_of(jobs, second)
    assert ray_job.result_of(folder).status is TrainingStatus.PAUSED

    third = attempt(3, "cut")
    folder = await ray_job.start(jobs, third)
    assert await ray_job.end_of(jobs, third) is RunState.SUCCEEDED, await jobs.logs(submission_id(third.job, 3))
    result, expected = ray_job.result_of(folder), ray_job.result_of(whole_folder)
    assert (result.digest, result.trained_tokens) == (expected.digest, expected.trained_tokens)
    assert result.metrics == expected.metrics


async def test_they_stop_early_at_the_same_step(jobs: RayJobs, base_model: Path, tmp_path: Path) -> None:
    """What is held out prefers the other answers, so that its loss rises from the first step on."""
    spec = spec_of(tmp_path, base_model, "dpo")
    held_out = tmp_path / "held_out.jsonl"
    other = {"preferred_output": "non_preferred_output", "non_preferred_output": "preferred_output"}
    rows = [{other.get(name, name): value for name, value in row(n, "dpo").items()} for n in range(4)]
    held_out.write_text("".join(json.dumps(one) + "\n" for one in rows))
    wanted = msgspec.structs.replace(spec.hyperparameters, n_epochs=50, early_stopping_patience=1)
    spec = msgspec.structs.replace(
        spec, job=JobId("ftjob-early"), validation_url=f"file://{held_out}", hyperparameters=wanted
    )
    folder = await ray_job.start(jobs, spec)
    assert await ray_job.end_of(jobs, spec) is RunState.SUCCEEDED, await jobs.logs(submission_id(spec.job, 1))
    result = ray_job.result_of(folder)
    assert [checkpoint.epoch for checkpoint in result.checkpoints] == [1, 2]
    assert len(losses(folder)) == 2 * STEPS // EPOCHS
    counts = json.loads((folder / "summary.json").read_bytes())
    assert result.trained_tokens == 2 * counts["tokens_per_epoch"]
