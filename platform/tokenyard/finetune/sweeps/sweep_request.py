"""The body of `POST /v1/fine_tuning/sweeps`: that of a job, and a grid of hyperparameters."""

import secrets
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Annotated

from pydantic import BaseModel, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.training import MAX_LEARNING_RATE_MULTIPLIER
from tokenyard.finetune.job_request import MAX_SEED, JobRequest
from tokenyard.finetune.methods.hyperparameters import MAX_BATCH_SIZE, MAX_EPOCHS

MIN_TRIALS = 2
MAX_TRIALS = 8

_VALUES = Field(default=None, min_length=1, max_length=MAX_TRIALS)
_Multiplier = Annotated[float, Field(gt=0, le=MAX_LEARNING_RATE_MULTIPLIER, strict=True)]
_Epochs = Annotated[int, Field(ge=1, le=MAX_EPOCHS, strict=True)]
_BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE, strict=True)]


class SweepGrid(BaseModel, extra="forbid"):
    """The values to be tried; each combination is one trial."""

    learning_rate_multiplier: Annotated[list[_Multiplier] | None, _VALUES]
    n_epochs: Annotated[list[_Epochs] | None, _VALUES]
    batch_size: Annotated[list[_BatchSize] | None, _VALUES]

    @property
    def axes(self) -> dict[str, Sequence[float]]:
        """The hyperparameters that are tried, each with its values."""
        asked = {
            "learning_rate_multiplier": self.learning_rate_multiplier,
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
        }
        return {name: values for name, values in asked.items() if values is not None}


class SweepRequest(JobRequest, extra="forbid"):
    """What a client asks for: a job, tried with each combination of `sweep`.

    A trial is a job like any other, with the same seed as the others. The one that does best on the validation file is
    published; the others end without a model.
    """

    sweep: SweepGrid

    def check(self) -> None:
        super().check()
        if self.adapter is not None:
            raise InvalidRequest("Nothing is trained, so there is nothing to try.", param="method.type")
        if self.validation_file is None:
            raise InvalidRequest("Which trial is the best is told by a validation_file.", param="validation_file")
        if self.callable_checkpoints:
            raise InvalidRequest(
                "Of a sweep one model is kept, so none of its checkpoints can be called.", param="callable_checkpoints"
            )
        self._check_grid()

    def _check_grid(self) -> None:
        axes = self.sweep.axes
        for name, values in axes.items():
            if len(set(values)) < len(values):
                raise InvalidRequest("A value that is tried twice tells nothing new.", param=f"sweep.{name}")
            if name in self.hyperparameters_asked.model_fields_set:
                raise InvalidRequest(
                    f"`sweep` says which values of {name} are tried.", param=f"{self.hyperparameters_place}.{name}"
                )
        trials = prod(len(values) for values in axes.values())
        if not MIN_TRIALS <= trials <= MAX_TRIALS:
            raise InvalidRequest(
                f"These are {trials} combinations; a sweep has {MIN_TRIALS} to {MAX_TRIALS}.", param="sweep"
            )

    def trials(self) -> list[JobRequest]:
        """Return the request of each trial, the last hyperparameter changing first."""
        axes = self.sweep.axes
        seed = secrets.randbelow(MAX_SEED) if self.seed is None else self.seed
        chosen = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        return [self._trial(seed, each) for each in chosen]

    def _trial(self, seed: int, chosen: dict[str, float]) -> JobRequest:
        asked = self.model_dump(exclude={"sweep"}, exclude_unset=True) | {"seed": seed}
        inner = asked
        for name in self.hyperparameters_place.split("."):
            inner[name] = inner.get(name) or {}
            inner = inner[name]
        inner |= chosen
        return JobRequest.model_validate(asked)
