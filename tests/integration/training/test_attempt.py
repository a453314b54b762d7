"""The attempt's folder and the decisions about the machine."""

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch")
from tokenyard.core.ids import JobId
from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    ResumePoint,
    TrainingCheckpoint,
    TrainingEvent,
    TrainingResources,
    TrainingResult,
    TrainingStatus,
)
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import out_of_memory
from tokenyard_deployments.training.machine import micro_batch, thread_count, worker_environment


def checkpoint(epoch: int) -> TrainingCheckpoint:
    return TrainingCheckpoint(
        step_number=epoch * 10, epoch=epoch, created_at=1, path=f"checkpoints/step-{epoch * 10}", metrics={}
    )


def trained(folder: Path) -> Path:
    """What a trainer leaves on the local disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, "trainer_state.json", "optimizer.pt", "rng_state.pth", "README.md"):
        (folder / name).write_text(name)
    return folder


def test_events_count_on_where_another_process_left_off(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/attempt"
    AttemptFolder(url).add_event("one")
    second = AttemptFolder(url)
    second.add_event("two", metrics={"step": 1, "train_loss": 0.5})
    second.add_event("three", level="warn")
    events = [
        msgspec.json.decode(file.read_bytes(), type=TrainingEvent)
        for file in sorted((tmp_path / "attempt" / "events").iterdir())
    ]
    assert [(event.seq, event.message, event.type, event.level) for event in events] == [
        (1, "one", "message", "info"),
        (2, "two", "metrics", "info"),
        (3, "three", "message", "warn"),
    ]


def point(step: int) -> ResumePoint:
    return ResumePoint(step_number=step, total_steps=9, trained_tokens=step * 100, created_at=1)


def test_a_checkpoint_is_an_adapter_and_nothing_else(tmp_path: Path) -> None:
    folder = AttemptFolder(f"file://{tmp_path}/attempt")
    for epoch in (1, 2):
        folder.save_checkpoint(trained(tmp_path / "local"), checkpoint(epoch))
    assert [one.epoch for one in folder.checkpoints()] == [1, 2]
    files = {path.name: {file.name for file in path.iterdir()} for path in (tmp_path / "attempt/checkpoints").iterdir()}
    bare = {ADAPTER_WEIGHTS, ADAPTER_CONFIG, "checkpoint.json"}
    assert files == {"step-10": bare, "step-20": bare}


def test_only_the_last_resume_point_is_kept(tmp_path: Path) -> None:
    folder = AttemptFolder(f"file://{tmp_path}/attempt")
    assert folder.resume_point() is None
    for step in (3, 4):
        folder.save_resume_point(trained(tmp_path / "local"), point(step))
    assert folder.resume_point() == point(4)
    [kept] = (tmp_path / "attempt/resume").iterdir()
    state = {"trainer_state.json", "optimizer.pt", "rng_state.pth", "point.json"}
    assert {file.name for file in kept.iterdir()} == {ADAPTER_WEIGHTS, ADAPTER_CONFIG, *state}


def test_a_resume_point_that_is_not_whole_is_none(tmp_path: Path) -> None:
    folder = AttemptFolder(f"file://{tmp_path}/attempt")
    folder.save_resume_point(trained(tmp_path / "local"), point(3))
    trained(tmp_path / "attempt/resume/step-00000004")
    assert folder.resume_point() == point(3)


def test_a_checkpoint_that_is_not_whole_is_none(tmp_path: Path) -> None:
    half = trained(tmp_path / "attempt/checkpoints/step-10")
    folder = AttemptFolder(f"file://{tmp_path}/attempt")
    assert folder.checkpoints() == []
    folder.save_checkpoint(trained(tmp_path / "local"), checkpoint(1))  # the same step again, whole this time
    assert [one.epoch for one in folder.checkpoints()] == [1]
    assert not (half / "README.md").exists()


def test_the_result_ends_it(tmp_path: Path) -> None:
    folder = AttemptFolder(f"file://{tmp_path}/attempt")
    folder.write_failure(out_of_memory())
    assert folder.failure() == out_of_memory()
    result = TrainingResult(
        job=JobId("ftjob-a"),
        attempt=1,
        status=TrainingStatus.FAILED,
        trained_tokens=0,
        started_at=1,
        finished_at=2,
        error=folder.failure(),
    )
    folder.write_result(result)
    assert {file.name for file in (tmp_path / "attempt").iterdir()} == {"result.json"}
    assert msgspec.json.decode((tmp_path / "attempt/result.json").read_bytes(), type=TrainingResult) == result


@pytest.mark.parametrize(
    ("rows", "longest", "gpu", "expected"),
    [
        (4, 64, False, 4),
        (4, 1024, False, 2),
        (6, 500, False, 3),
        (7, 1000, False, 1),
        (8, 9000, False, 1),
        (8, 2048, True, 8),
    ],
)
def test_a_pass_fits_the_memory_and_divides_the_batch(rows: int, longest: int, gpu: bool, expected: int) -> None:
    assert micro_batch(rows, lambda size: size * longest, gpu=gpu) == expected


def test_threads_sleep_while_they_wait_and_leave_a_core_to_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert thread_count(TrainingResources()) == expected
    assert thread_count(TrainingResources(threads=5)) == 5
    environment = worker_environment(TrainingResources(threads=5))
    assert (environment["OMP_NUM_THREADS"], environment["OMP_WAIT_POLICY"]) == ("5", "PASSIVE")
