"""Fine-tuning methods, one a file. Each has a function `train`; a spec names its method."""

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from tokenyard.core.training import TrainingSpec
from tokenyard_deployments.training.failures import TrainingFailed

METHODS = ("supervised", "dpo", "reinforcement")


class TrainingWorker(NamedTuple):
    """One of `workers`. Every rank calls `on_epoch` at an epoch's end; `prepare` fits the trainer to the cluster."""

    rank: int
    workers: int
    on_epoch: Callable[[dict[str, float]], None]
    prepare: Callable[[Any], Any]

    def measures(self, spec: TrainingSpec) -> bool:
        """Tell whether it measures the model: where none has it whole, all must compute together."""
        return self.rank == 0 or spec.resources.strategy == "fsdp"


TrainingMethod = Callable[[TrainingSpec, TrainingWorker], None]
"""Trains in one worker; leaves events, checkpoints and counts in the attempt's folder. Knows no Ray.

Raises `TrainingFailed` where the data, the settings or the model do not allow it.
"""


def training_method(name: str) -> TrainingMethod:
    """Import a method only where it is used: it brings slow libraries, of which the driver needs none.

    Raises:
        TrainingFailed: there is none of that name.
    """
    if name not in METHODS:
        raise TrainingFailed("method_not_available", f"The method '{name}' is not available.")
    _leave_out("wandb")  # transformers would load it where it is installed: 50 MB and a second or two for nothing
    method: TrainingMethod = importlib.import_module(f"{__name__}.{name}").train
    return method


def _leave_out(library: str) -> None:
    """Make as if a library were not installed, unless it is in use already."""
    sys.modules.setdefault(library, None)  # type: ignore[arg-type]  # what `import` documents for it
