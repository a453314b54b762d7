"""Training that ended early has ended, also for an attempt that takes over from one that was lost."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("trl")

from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import spec_of, train, write_rows
from tokenyard.core.training import RESULT_FILE, TrainingCheckpoint, TrainingResult, TrainingSpec, TrainingStatus
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.job import Attempt
from tokenyard_deployments.training.methods.early_stopping import early_stopping

EPOCHS = 30


def rows(answer: str) -> list[dict[str, Any]]:
    said = [{"role": "user", "content": "Say it"}, {"role": "assistant", "content": answer}]
    return [{"messages": said}] * 4


@pytest.fixture
def spec(tmp_path: Path) -> TrainingSpec:
    """Of rows that teach more than what is held out, whose loss falls at first, and rises once they are known."""
    held_out = write_rows(tmp_path / "held_out.jsonl", rows("yes"))
    return spec_of(
        save_tiny_model(tmp_path / "base"),
        tmp_path,
        write_rows(tmp_path / "rows.jsonl", rows("yesno")),
        method="supervised",
        validation_url=f"file://{held_out}",
        n_epochs=EPOCHS,
        batch_size=4,
        learning_rate_multiplier=100.0,
        early_stopping_patience=1,
    )


def result_of(spec: TrainingSpec) -> TrainingResult:
    data = AttemptFolder(spec.output_url).read(RESULT_FILE)
    assert data is not None
    return msgspec.json.decode(data, type=TrainingResult)


def test_what_is_left_after_the_last_step_trains_nothing_again(spec: TrainingSpec) -> None:
    folder = train(spec)
    point = folder.resume_point()
    assert point is not None
    assert point.is_last
    assert point.step_number < EPOCHS
    again = msgspec.structs.replace(
        spec, attempt=2, resume_url=spec.output_url, output_url=spec.output_url.replace("/1", "/2")
    )
    for attempt in (again, spec):
        assert Attempt(attempt).run() is TrainingStatus.SUCCEEDED  # there is no Ray to train with
    assert result_of(again).digest == result_of(spec).digest is not None
    assert result_of(again).trained_tokens == point.trained_tokens
    assert result_of(again).metrics == result_of(spec).metrics


def test_the_best_epoch_so_far_comes_along(spec: TrainingSpec, tmp_path: Path) -> None:
    earlier = AttemptFolder(spec.output_url)
    for epoch, loss in enumerate((3.0, 2.0, 2.5, 2.7), start=1):
        checkpoint = TrainingCheckpoint(
            step_number=epoch, epoch=epoch, created_at=1, path=f"checkpoints/{epoch}", metrics={"valid_loss": loss}
        )
        earlier.save_checkpoint(tmp_path, checkpoint)
    folder = AttemptFolder(f"file://{tmp_path}/2")
    early_stopping(msgspec.structs.replace(spec, resume_url=spec.output_url), folder, writes=True)
    assert [one.epoch for one in folder.checkpoints()] == [2, 4]
