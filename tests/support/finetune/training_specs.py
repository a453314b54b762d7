"""Trains a spec in this process, without Ray."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import Hyperparameters, TrainingResources, TrainingSpec
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.methods import TrainingWorker, training_method


def write_rows(file: Path, rows: Sequence[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def spec_of(
    base_model: Path, folder: Path, training: Path, *, method: str, attempt: int = 1, **changed: Any
) -> TrainingSpec:
    """Return a spec whose attempt stands in `folder`; what is no field of a spec is a hyperparameter."""
    fields = {name: changed.pop(name) for name in list(changed) if name in TrainingSpec.__struct_fields__}
    plain: dict[str, Any] = {
        "job": JobId("ftjob-a"),
        "attempt": attempt,
        "organization": OrganizationId("org_test"),
        "base_model": "tiny",
        "method": method,
        "base_model_path": str(base_model),
        "training_url": f"file://{training}",
        "output_url": f"file://{folder}/{attempt}",
        "hyperparameters": Hyperparameters(**{"learning_rate_multiplier": 1.0, **changed}),
        "seed": 3,
        "max_seq_length": 128,
        "max_lora_rank": 16,
        "resources": TrainingResources(threads=1),
    }
    return TrainingSpec(**plain | fields)


def train(spec: TrainingSpec, *, on_epoch: Callable[[dict[str, float]], None] = lambda _metrics: None) -> AttemptFolder:
    """Run a method as a Ray Train worker does."""
    worker = TrainingWorker(0, 1, on_epoch=on_epoch, prepare=lambda trainer: trainer)
    training_method(spec.method)(spec, worker)
    return AttemptFolder(spec.output_url)
