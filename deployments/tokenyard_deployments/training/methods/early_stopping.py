"""Ends training once the validation loss does not fall any more; export then takes the epoch with the lowest."""

import tempfile
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tokenyard.core.training import TrainingSpec, best_checkpoint
from tokenyard_deployments.training.attempt import AttemptFolder


class EarlyStopping(TrainerCallback):  # type: ignore[misc]
    """Comes behind the reporter, whose report of an epoch every rank waits for: so all of them read the same."""

    def __init__(self, folder: AttemptFolder, patience: int, *, writes: bool) -> None:
        """`patience` is in epochs; rank 0 `writes`."""
        self._folder = folder
        self._patience = patience
        self._writes = writes

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        found = self._folder.checkpoints()
        if not found or state.global_step >= state.max_steps:
            return
        best = best_checkpoint(found)
        if found[-1].epoch - best.epoch >= self._patience:
            control.should_training_stop = True
            if self._writes:
                self._folder.add_event(
                    f"For {self._patience} epochs the model has not become better; epoch {best.epoch} is the best"
                )


def early_stopping(spec: TrainingSpec, folder: AttemptFolder, *, writes: bool) -> list[EarlyStopping]:
    """Return what ends training early, where that is asked for."""
    patience = spec.hyperparameters.early_stopping_patience
    if patience is None:
        return []
    if writes and spec.resume_url is not None:
        _carry_over(AttemptFolder(spec.resume_url), folder)
    return [EarlyStopping(folder, patience, writes=writes)]


def _carry_over(earlier: AttemptFolder, folder: AttemptFolder) -> None:
    """Bring along the checkpoints that count from here on: the best one so far, and the last one."""
    found = earlier.checkpoints()
    for checkpoint in {one.step_number: one for one in (best_checkpoint(found), found[-1])}.values() if found else ():
        with tempfile.TemporaryDirectory(prefix="tokenyard-checkpoint-") as scratch:
            earlier.download(checkpoint.path, Path(scratch))
            folder.save_checkpoint(Path(scratch), checkpoint)
