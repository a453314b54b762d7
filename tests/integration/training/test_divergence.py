"""Supervised training, without Ray, on numbers that go wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
from support.fakes.tiny_model import save_tiny_model
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import Hyperparameters, TrainingResources, TrainingSpec
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.methods import TrainingWorker, training_method

SHORT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
CUT = {"messages": [{"role": "user", "content": "x" * 200}, {"role": "assistant", "content": "never reached"}]}


def train(base_model: Path, folder: Path, rows: list[dict[str, Any]], **hyperparameters: Any) -> AttemptFolder:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = TrainingSpec(
        job=JobId("ftjob-a"),
        attempt=1,
        organization=OrganizationId("org_test"),
        base_model="tiny",
        method="supervised",
        base_model_path=str(base_model),
        training_url=f"file://{file}",
        output_url=f"file://{folder}/attempt",
        hyperparameters=Hyperparameters(learning_rate_multiplier=1.0, **hyperparameters),
        seed=3,
        max_seq_length=128,
        max_lora_rank=16,
        resources=TrainingResources(threads=1),
    )
    worker = TrainingWorker(0, 1, on_epoch=lambda _metrics: None, prepare=lambda trainer: trainer)
    training_method(spec.method)(spec, worker)
    return AttemptFolder(spec.output_url)


@pytest.mark.parametrize("scale", [1e30, float("inf")], ids=["weights", "loss"])
def test_numbers_that_are_none_end_training_before_any_checkpoint(tmp_path: Path, scale: float) -> None:
    """At 1e30 the first loss is still a number, and the weights after it are not."""
    base_model = save_tiny_model(tmp_path / "base", embedding_scale=scale)
    with pytest.raises(TrainingFailed) as failed:
        train(base_model, tmp_path, [SHORT], n_epochs=1, batch_size=1)
    assert (failed.value.error.code, failed.value.error.retryable) == ("training_diverged", False)
    assert "learning_rate_multiplier" in failed.value.error.message
    assert AttemptFolder(f"file://{tmp_path}/attempt").checkpoints() == []


def test_a_batch_in_which_nothing_is_left_to_learn_does_no_harm(tmp_path: Path) -> None:
    folder = train(save_tiny_model(tmp_path / "base"), tmp_path, [SHORT, CUT, CUT], n_epochs=2, batch_size=1)
    assert [checkpoint.epoch for checkpoint in folder.checkpoints()] == [1, 2]
