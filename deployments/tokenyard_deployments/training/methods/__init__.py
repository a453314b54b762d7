"""Fine-tuning methods, one a file. Each has a function `train`; a spec names its method."""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from tokenyard.core.training import TrainingSpec
from tokenyard_deployments.training.failures import TrainingFailed

METHODS = ("supervised",)


class TrainingMethod(Protocol):
    """Trains in one worker; leaves events, checkpoints and counts in the attempt's folder. Knows no Ray."""

    def __call__(
        self,
        spec: TrainingSpec,
        *,
        rank: int,
        workers: int,
        on_epoch: Callable[[dict[str, float]], None],
        prepare: Callable[[Any], Any],
    ) -> None:
        """Train. Every rank calls `on_epoch` at an epoch's end; `prepare` fits the trainer to the cluster.

        Raises:
            TrainingFailed: the data, the settings or the model do not allow it.
        """
        ...


def training_method(name: str) -> TrainingMethod:
    """Import a method only where it is used: it brings slow libraries, of which the driver needs none.

    Raises:
        TrainingFailed: there is none of that name.
    """
    if name not in METHODS:
        raise TrainingFailed("method_not_available", f"The method '{name}' is not available.")
    method: TrainingMethod = importlib.import_module(f"{__name__}.{name}").train
    return method
