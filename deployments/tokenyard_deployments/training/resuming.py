"""Saves points from which training goes on as if nothing had been, and ends it at one where that is asked for."""

import time
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from tokenyard.core.training import RESUME_FOLDER, ResumePoint, TrainingResources, TrainingSpec, step_folder
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import TrainingFailed, diverged
from tokenyard_deployments.training.methods import TrainingWorker
from tokenyard_deployments.training.steps.tokens import TokenCount

_LOOK_INTERVAL_S = 0.5
_LOOK_SHARE = 0.01  # the most of the time that goes into looking whether to pause
_LOGS_KEPT = 10  # the trainer's own; they are told as events, and would grow with every point


class _Decision(IntEnum):
    """What becomes of training after a step."""

    GO_ON = 0
    SAVE = 1
    PAUSE = 2
    TIME_OUT = 3


class ResumePoints(TrainerCallback):  # type: ignore[misc]
    """The first worker decides and writes; the others follow it."""

    def __init__(
        self, spec: TrainingSpec, folder: AttemptFolder, worker: TrainingWorker, trained_tokens: TokenCount
    ) -> None:
        self._folder = folder
        self._worker = worker
        self._trained_tokens = trained_tokens
        self._pace = _Pace(spec.resources)
        self._decision = _Decision.GO_ON

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == state.max_steps:
            return  # the epoch's end saves it
        self._decision = self._agreed(self._decided())
        if self._decision > _Decision.SAVE:
            control.should_training_stop = True
        if self._decision is not _Decision.GO_ON and not ends_epoch(state):
            if not is_finite(model):
                raise diverged()
            control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the trainer, which ends the epoch where it stops, from saving the same step again."""
        control.should_save = control.should_save and ends_epoch(state)
        self._pace.begins()

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del state.log_history[:-_LOGS_KEPT]

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        source, step = Path(get_last_checkpoint(args.output_dir)), state.global_step
        if self._worker.workers > 1:
            if self._worker.rank > 0:
                self._folder.save_random_state(source, step)
            distributed.barrier()
        if self._worker.rank == 0:
            point = ResumePoint(
                step_number=step,
                total_steps=state.max_steps,
                trained_tokens=self._trained_tokens(state),
                created_at=int(time.time()),
                ended_early=self._ends_early(state, control),
            )
            self._folder.save_resume_point(source, point)
            self._pace.saved()

    def _ends_early(self, state: Any, control: Any) -> bool:
        """Tell whether somebody else ends training before its last step, and not only this attempt."""
        stops = control.should_training_stop and self._decision in (_Decision.GO_ON, _Decision.SAVE)
        return bool(stops and state.global_step < state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._decision is _Decision.TIME_OUT:
            limit = f"{self._pace.timeout_s / 60:g} minutes"
            raise TrainingFailed("training_timeout", f"Training did not end within the {limit} that are allowed.")

    def _decided(self) -> _Decision:
        if self._worker.rank > 0:
            return _Decision.GO_ON
        if self._pace.is_over():
            return _Decision.TIME_OUT
        if self._pace.may_look():
            asked = self._folder.is_to_pause()
            self._pace.looked()
            if asked:
                return _Decision.PAUSE
        return _Decision.SAVE if self._pace.may_save() else _Decision.GO_ON

    def _agreed(self, decision: _Decision) -> _Decision:
        if self._worker.workers == 1:
            return decision
        told = [decision]
        distributed.broadcast_object_list(told, src=0)
        return told[0]


class _Pace:
    """Keeps the time. Each of the two things that cost time is begun at most so often that it stays below its share."""

    def __init__(self, resources: TrainingResources) -> None:
        self.timeout_s = resources.timeout_s
        self._interval_s = resources.resume_interval_s
        self._share = resources.resume_share
        self._started_at = self._begun_at = time.monotonic()
        self._next_save = self._started_at + self._interval_s
        self._next_look = self._started_at

    def is_over(self) -> bool:
        return time.monotonic() - self._started_at > self.timeout_s

    def begins(self) -> None:
        """Take the time from now on as that of what is now done."""
        self._begun_at = time.monotonic()

    def may_save(self) -> bool:
        self.begins()
        return self._begun_at >= self._next_save

    def saved(self) -> None:
        self._next_save = _next(self._begun_at, self._interval_s, self._share)

    def may_look(self) -> bool:
        self.begins()
        return self._begun_at >= self._next_look

    def looked(self) -> None:
        self._next_look = _next(self._begun_at, _LOOK_INTERVAL_S, _LOOK_SHARE)


def _next(begun_at: float, interval_s: float, share: float) -> float:
    """Return when to do it again, so that what it took is at most `share` of the time."""
    now = time.monotonic()
    return now + max(interval_s, (now - begun_at) * (1 / share - 1))


def resume(spec: TrainingSpec, folder: AttemptFolder, target: Path, *, report: bool) -> str | None:
    """Bring the resume point of an earlier attempt to `target`; None where training is to begin afresh.

    Raises:
        TrainingFailed: the spec names an attempt to go on from, and its point is not there, or not whole.
    """
    if spec.resume_url is None:
        return None
    earlier = AttemptFolder(spec.resume_url)
    point = earlier.resume_point()
    if point is None:
        raise TrainingFailed("checkpoint_lost", "The checkpoint to go on from is gone.", retryable=True)
    earlier.download(step_folder(RESUME_FOLDER, point.step_number), target)
    if report:
        folder.add_event(f"Going on after step {point.step_number} of {point.total_steps}")
    return str(target)


def is_finite(model: Any) -> bool:
    """Tell whether what is trained are numbers: a step's loss is of the weights before it."""
    trained = (weight for weight in model.parameters() if weight.requires_grad)
    own = (weight.to_local() if isinstance(weight, DTensor) else weight for weight in trained)
    return all(bool(torch.isfinite(weight).all()) for weight in own)


def ends_epoch(state: Any) -> bool:
    """Tell whether the trainer's last step was an epoch's last one."""
    return bool(state.global_step % (state.max_steps // state.num_train_epochs) == 0)
