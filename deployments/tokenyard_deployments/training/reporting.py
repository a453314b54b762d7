"""Writes into the attempt's folder how training goes: a metrics event a step, a checkpoint an epoch."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from tokenyard.core.training import CHECKPOINTS_FOLDER, TrainingCheckpoint, deciding_figure, merit, step_folder
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.evaluation.held_out import Evaluation
from tokenyard_deployments.training.evaluation.preferences import PreferenceEvaluation
from tokenyard_deployments.training.evaluation.rewards import RewardEvaluation
from tokenyard_deployments.training.failures import diverged
from tokenyard_deployments.training.resuming import ends_epoch, is_finite

_REWARDS = {
    "rewards/accuracies": "train_reward_accuracy",
    "rewards/margins": "train_reward_margin",
    "rewards/chosen": "train_reward_preferred",
    "rewards/rejected": "train_reward_non_preferred",
    "reward": "train_reward",
    "reward_std": "train_reward_std",
    "completions/mean_length": "train_completion_length",
    "kl": "train_kl",
}
"""TRL's names of what a step on preferences, or on answers, measures, and ours."""


class Measure(Protocol):
    """Measures a model on held-out rows."""

    def __call__(self, model: Any) -> Evaluation | PreferenceEvaluation | RewardEvaluation: ...


class TrainingReporter(TrainerCallback):  # type: ignore[misc]
    """Rank 0 writes; every rank calls `on_epoch`, as Ray Train wants. Who is given a measure measures."""

    def __init__(
        self,
        folder: AttemptFolder,
        measure: Measure | None,
        *,
        writes: bool,
        on_epoch: Callable[[dict[str, float]], None],
    ) -> None:
        self._folder = folder
        self._measure = measure
        self._writes = writes
        self._on_epoch = on_epoch
        self._valid: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise diverged()
        if self._writes:
            metrics = {**step_metrics(logs), "step": state.global_step, "total_steps": state.max_steps}
            metrics["epoch"] = round(float(state.epoch), 4)
            message = f"Step {state.global_step}/{state.max_steps}: training loss={metrics['train_loss']:.2f}"
            self._folder.add_event(message, metrics=metrics)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Measure on the held-out rows, before the checkpoint is written, which must be one to go on from."""
        if not ends_epoch(state):
            return  # the trainer also calls so where it stops
        if not is_finite(model):
            raise diverged()
        if self._measure is not None:
            measured = self._measure(model)
            self._valid = {f"valid_{name}": value for name, value in msgspec.structs.asdict(measured).items()}
            if not math.isfinite(merit(self._valid, "valid_")):
                raise diverged()
            # The names that OpenAI uses for a measure over the whole validation file.
            self._valid |= {f"full_{name}": value for name, value in self._valid.items()}

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not ends_epoch(state):
            return
        last: dict[str, Any] = next((logs for logs in reversed(state.log_history) if "loss" in logs), {})
        metrics = {"step": float(state.global_step), **step_metrics(last), **self._valid}
        if self._writes:
            self._save(args.output_dir, round(float(state.epoch)), state.global_step, metrics)
        self._on_epoch(metrics)

    def _save(self, output_dir: str, epoch: int, step: int, metrics: dict[str, float]) -> None:
        checkpoint = TrainingCheckpoint(
            step_number=step,
            epoch=epoch,
            created_at=int(time.time()),
            path=step_folder(CHECKPOINTS_FOLDER, step),
            metrics=metrics,
        )
        self._folder.save_checkpoint(Path(get_last_checkpoint(output_dir)), checkpoint)
        if self._valid:
            figure = deciding_figure(self._valid, "valid_")
            message = f"Epoch {epoch}: validation {figure.removeprefix('valid_')}={self._valid[figure]:.2f}"
            self._folder.add_event(message, metrics={**metrics, "step": step, "epoch": float(epoch)})
        self._folder.add_event(f"Checkpoint created at step {step}", checkpoint=checkpoint)


def step_metrics(logs: dict[str, Any]) -> dict[str, float]:
    """Return a step's log under OpenAI's names, and what OpenAI has no name for under ours."""
    found = {"train_loss": float(logs["loss"])} if "loss" in logs else {}
    if "mean_token_accuracy" in logs:
        found["train_mean_token_accuracy"] = float(logs["mean_token_accuracy"])
    return found | {ours: float(logs[theirs]) for theirs, ours in _REWARDS.items() if theirs in logs}
