"""A training attempt as a real Ray job: killed, resumed from its checkpoint, published, stopped, failing clearly."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import msgspec
import psutil
import pytest

from support.fakes.tiny_model import save_tiny_model
from support.ray_cluster.private_ray import Cluster
from tokenyard.clients.ray_jobs import RayJobs
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MANIFEST_FILE,
    AdapterManifest,
    Hyperparameters,
    RunState,
    TrainingEvent,
    TrainingResources,
    TrainingResult,
    TrainingSpec,
    TrainingStatus,
    adapter_digest,
    submission_id,
)

pytestmark = pytest.mark.timeout(600)

ORGANIZATION = OrganizationId("org_test")
LIMIT_S = 240.0
ROWS = 4
EPOCHS = 12
# <|im_start|> + "user\n" + 1 + <|im_end|> + "\n", and <|im_start|> + "assistant\n" + 7 + <|im_end|> + "\n"
TOKENS_PER_ROW = (1 + 5 + 1 + 1 + 1) + (1 + 10 + 7 + 1 + 1)


@pytest.fixture
async def jobs(cluster: Cluster) -> AsyncIterator[RayJobs]:
    async with aiohttp.ClientSession() as session:
        yield RayJobs(session, cluster.url, cluster.token_file)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": str(n)}, {"role": "assistant", "content": "Acme! " + str(n)}]}
        for n in range(ROWS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def spec_of(job: str, attempt: int, folder: Path, base_model: Path, dataset: Path, *, epochs: int) -> TrainingSpec:
    return TrainingSpec(
        job=JobId(job),
        attempt=attempt,
        organization=ORGANIZATION,
        base_model="tiny",
        method="supervised",
        base_model_path=str(base_model),
        training_url=f"file://{dataset}",
        validation_url=f"file://{dataset}",
        output_url=f"file://{folder / job / str(attempt)}",
        resume_url=f"file://{folder / job / str(attempt - 1)}" if attempt > 1 else None,
        hyperparameters=Hyperparameters(n_epochs=epochs, batch_size=2, learning_rate_multiplier=20.0),
        seed=3,
        max_seq_length=256,
        max_lora_rank=16,
        resources=TrainingResources(threads=1, timeout_s=LIMIT_S, resume_interval_s=0.0, resume_share=1.0),
    )


async def start(jobs: RayJobs, spec: TrainingSpec) -> Path:
    """Submit an attempt; return its folder."""
    folder = Path(spec.output_url.removeprefix("file://"))
    folder.mkdir(parents=True)  # noqa: ASYNC240
    (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
    entrypoint = f"python -m tokenyard_deployments.training.job {spec.output_url}/spec.json"

    async def accepted() -> bool:
        try:
            await jobs.submit(submission_id(spec.job, spec.attempt), entrypoint, metadata={"job": spec.job})
        except Unavailable:  # a head node that has just started has no agent yet
            return False
        return True

    await until(accepted, "Ray takes the job")
    return folder


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not await condition():
        assert time.monotonic() < deadline, f"not in {LIMIT_S:.0f} s: {what}"
        await asyncio.sleep(0.1)


async def end_of(jobs: RayJobs, spec: TrainingSpec) -> RunState:
    async def ended() -> bool:
        status = await jobs.status(submission_id(spec.job, spec.attempt))
        return status is not None and not status.state.is_active

    await until(ended, "the job ends")
    status = await jobs.status(submission_id(spec.job, spec.attempt))
    assert status is not None
    return status.state


async def first_point(folder: Path) -> None:
    async def there() -> bool:
        return any(folder.glob("resume/*/point.json"))  # noqa: ASYNC240

    await until(there, "a point to go on from")


def drivers(spec: TrainingSpec) -> list[psutil.Process]:
    wanted = f"{spec.output_url}/spec.json"
    return [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [""])[-1] == wanted]


def workers(cluster: Cluster) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(cluster.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def result_of(folder: Path) -> TrainingResult:
    return msgspec.json.decode((folder / "result.json").read_bytes(), type=TrainingResult)


def events_of(folder: Path) -> list[TrainingEvent]:
    return [msgspec.json.decode(file.read_bytes(), type=TrainingEvent) for file in sorted(folder.glob("events/*.json"))]


@pytest.mark.long
async def test_killed_and_resumed_it_is_published_as_if_nothing_had_been(
    cluster: Cluster, jobs: RayJobs, base_model: Path, dataset: Path, tmp_path: Path
) -> None:
    whole = spec_of("ftjob-whole", 1, tmp_path, base_model, dataset, epochs=EPOCHS)
    whole_folder = await start(jobs, whole)
    first = spec_of("ftjob-resumed", 1, tmp_path, base_model, dataset, epochs=EPOCHS)
    folder = await start(jobs, first)
    await start_again_is_nothing(jobs, first)
    await first_point(folder)
    for process in drivers(first):
        os.kill(process.pid, signal.SIGKILL)
    assert await end_of(jobs, first) is RunState.FAILED
    assert not (folder / "result.json").exists()
    assert await end_of(jobs, whole) is RunState.SUCCEEDED

    second = spec_of("ftjob-resumed", 2, tmp_path, base_model, dataset, epochs=EPOCHS)
    folder = await start(jobs, second)
    await first_point(folder)
    for process in workers(cluster):
        process.kill()
    assert await end_of(jobs, second) is RunState.FAILED
    lost = result_of(folder)
    assert lost.error is not None
    assert (lost.error.code, lost.error.retryable) == ("training_interrupted", True)

    third = spec_of("ftjob-resumed", 3, tmp_path, base_model, dataset, epochs=EPOCHS)
    folder = await start(jobs, third)
    assert await end_of(jobs, third) is RunState.SUCCEEDED, await jobs.logs(submission_id(third.job, 3))
    result, expected = result_of(folder), result_of(whole_folder)
    assert result.status is TrainingStatus.SUCCEEDED
    assert result.digest == expected.digest
    assert result.trained_tokens == expected.trained_tokens == EPOCHS * ROWS * TOKENS_PER_ROW
    assert [checkpoint.epoch for checkpoint in expected.checkpoints] == list(range(1, EPOCHS + 1))
    assert result.metrics == expected.metrics
    assert result.metrics["valid_loss"] < result.metrics["base_valid_loss"]
    assert result.metrics["valid_mean_token_accuracy"] > result.metrics["base_valid_mean_token_accuracy"]
    check_story(events_of(folder))
    check_published(folder, result)
    check_layout(folder)


def check_story(events: list[TrainingEvent]) -> None:
    """Tell that the attempt did the rest of the steps, each once, and told of each checkpoint when it was whole."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert any(event.message.startswith("Going on after step ") for event in events)
    steps = [int(event.data["step"]) for event in events if "total_steps" in event.data]
    assert steps == list(range(steps[0], 2 * EPOCHS + 1))
    assert steps[0] > 2
    told = [event.checkpoint.epoch for event in events if event.checkpoint is not None]
    assert told == list(range(told[0], EPOCHS + 1))


async def start_again_is_nothing(jobs: RayJobs, spec: TrainingSpec) -> None:
    await jobs.submit(submission_id(spec.job, spec.attempt), "false", metadata={})


def check_published(folder: Path, result: TrainingResult) -> None:
    adapter = folder / "adapter"
    manifest = msgspec.json.decode((adapter / MANIFEST_FILE).read_bytes(), type=AdapterManifest)
    assert result.adapter == "adapter"
    assert result.digest == manifest.digest == adapter_digest(manifest.files)
    assert {file.name for file in adapter.iterdir()} == {MANIFEST_FILE, ADAPTER_WEIGHTS, ADAPTER_CONFIG}
    assert json.loads((adapter / ADAPTER_CONFIG).read_bytes())["base_model_name_or_path"] == "tiny"


def check_layout(folder: Path) -> None:
    """Nothing half-done is left, and the optimizer of the last step only."""
    top = {"spec.json", "begun", "result.json", "summary.json", "events", "checkpoints", "resume", "adapter"}
    assert {file.name for file in folder.iterdir()} == top
    assert [file.parent.name for file in folder.glob("*/*/optimizer.pt")] == [f"step-{2 * EPOCHS:08d}"]


async def test_stopped_and_failing(
    cluster: Cluster, jobs: RayJobs, base_model: Path, dataset: Path, tmp_path: Path
) -> None:
    stopped = spec_of("ftjob-stopped", 1, tmp_path, base_model, dataset, epochs=5000)
    failing = spec_of("ftjob-failing", 1, tmp_path, base_model, tmp_path / "deleted.jsonl", epochs=1)
    stopped_folder, failing_folder = await start(jobs, stopped), await start(jobs, failing)
    await first_point(stopped_folder)
    await jobs.stop(submission_id(stopped.job, 1))
    assert await end_of(jobs, stopped) is RunState.STOPPED
    result = result_of(stopped_folder)
    assert result.status is TrainingStatus.CANCELLED
    assert result.error is None
    assert result.adapter is None
    [kept] = stopped_folder.glob("resume/*/point.json")
    steps = json.loads(kept.read_bytes())["step_number"]
    assert result.trained_tokens == steps * (ROWS // 2) * TOKENS_PER_ROW > 0

    assert await end_of(jobs, failing) is RunState.FAILED
    result = result_of(failing_folder)
    assert result.status is TrainingStatus.FAILED
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("file_not_found", False)
    assert str(tmp_path) not in result.error.message
    assert events_of(failing_folder)[-1].level == "error"

    async def no_worker_left() -> bool:
        return not workers(cluster)

    await until(no_worker_left, "Ray ends the workers of jobs that are over")


@pytest.mark.long
async def test_asked_to_pause_it_ends_with_its_next_step(
    jobs: RayJobs, base_model: Path, dataset: Path, tmp_path: Path
) -> None:
    spec = spec_of("ftjob-paused", 1, tmp_path, base_model, dataset, epochs=5000)
    folder = await start(jobs, spec)
    await first_point(folder)
    (folder / "pause").write_bytes(b"{}")
    assert await end_of(jobs, spec) is RunState.FAILED  # only one that succeeded exits with 0
    result = result_of(folder)
    assert (result.status, result.error, result.digest) == (TrainingStatus.PAUSED, None, None)
    [point] = folder.glob("resume/*/point.json")
    steps = json.loads(point.read_bytes())["step_number"]
    assert result.trained_tokens == steps * (ROWS // 2) * TOKENS_PER_ROW
    assert [int(event.data["step"]) for event in events_of(folder) if "total_steps" in event.data][-1] == steps


@pytest.mark.long
async def test_a_training_that_diverges_says_so(jobs: RayJobs, dataset: Path, tmp_path: Path) -> None:
    base_model = save_tiny_model(tmp_path / "base", embedding_scale=1e30)
    spec = spec_of("ftjob-diverging", 1, tmp_path, base_model, dataset, epochs=2)
    folder = await start(jobs, spec)
    assert await end_of(jobs, spec) is RunState.FAILED
    result = result_of(folder)
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("training_diverged", False)
    assert (result.checkpoints, result.trained_tokens) == ((), 0)


@pytest.mark.long
async def test_a_signal_of_the_nodes_is_no_stop_for_ray(
    jobs: RayJobs, base_model: Path, dataset: Path, tmp_path: Path
) -> None:
    """A drained node sends what Ray's stop sends: the attempt cannot tell them apart, Ray's own word does."""
    spec = spec_of("ftjob-drained", 1, tmp_path, base_model, dataset, epochs=5000)
    folder = await start(jobs, spec)
    await first_point(folder)
    [driver] = [one for one in drivers(spec) if one.name().startswith("python")]
    driver.send_signal(signal.SIGTERM)
    assert await end_of(jobs, spec) is RunState.FAILED
    assert result_of(folder).status is TrainingStatus.CANCELLED


async def test_what_ray_does_not_know(jobs: RayJobs) -> None:
    assert await jobs.status("never-submitted") is None
    assert await jobs.logs("never-submitted") is None
    await jobs.stop("never-submitted")
