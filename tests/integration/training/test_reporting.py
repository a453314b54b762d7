"""What is told of a step, and which steps end training."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.reporting import TrainingReporter

STATE = SimpleNamespace(global_step=3, max_steps=8, epoch=1.5)


def reporter(folder: Path, *, writes: bool = True) -> TrainingReporter:
    return TrainingReporter(
        AttemptFolder(f"file://{folder}/attempt"), None, writes=writes, on_epoch=lambda _metrics: None
    )


def events(folder: Path) -> list[Path]:
    return list((folder / "attempt").glob("events/*.json"))


@pytest.mark.parametrize("writes", [True, False], ids=["first", "other"])
@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_training_on_every_worker(tmp_path: Path, loss: float, writes: bool) -> None:
    with pytest.raises(TrainingFailed) as failed:
        reporter(tmp_path, writes=writes).on_log(None, STATE, None, {"loss": loss})
    assert (failed.value.error.code, failed.value.error.retryable) == ("training_diverged", False)
    assert events(tmp_path) == []


def test_any_other_step_is_told(tmp_path: Path) -> None:
    reporter(tmp_path).on_log(None, STATE, None, {"loss": 0.5, "mean_token_accuracy": 0.25})
    assert len(events(tmp_path)) == 1
