"""Training in this process, without Ray: packed beside padded, and interrupted beside not."""

import statistics
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import TrainerCallback

from benchmarks.training.rows import spec_of, write_rows
from tokenyard.core.training import ADAPTER_WEIGHTS, TrainingResources, TrainingSpec
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.machine import thread_count
from tokenyard_deployments.training.methods import TrainingWorker, training_method

ROWS, BATCH = 64, 16
INTERRUPTED_ROWS, INTERRUPTED_BATCH, INTERRUPTED_AFTER = 24, 8, 1


class _Stopwatch(TrainerCallback):  # type: ignore[misc]
    """Takes the time of all steps."""

    def __init__(self) -> None:
        self._began = 0.0
        self.seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds = time.perf_counter() - self._began


class _Interrupted(Exception):
    """What stands here for a death of the process."""


class _Interrupts(TrainerCallback):  # type: ignore[misc]
    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == INTERRUPTED_AFTER:
            raise _Interrupted


def packing(folder: Path, base_model: Path, *, rounds: int) -> dict[str, float]:
    """Return the tokens a second of rows as chats have them, packed and padded, and the one over the other."""
    rows = write_rows(folder / "rows.jsonl", ROWS)
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds):
        for packs, found in speeds.items():
            spec = spec_of(base_model, folder / f"{number}-{packs}", rows, batch_size=BATCH, packing=packs)
            found.append(_tokens_per_s(spec))
    packed, padded = statistics.median(speeds[True]), statistics.median(speeds[False])
    return {
        "packing_speedup": round(packed / padded, 2),
        "tokens_per_s_packed": round(packed, 1),
        "tokens_per_s_padded": round(padded, 1),
    }


def _tokens_per_s(spec: TrainingSpec) -> float:
    watch = _Stopwatch()
    _train(spec, watch)
    point = AttemptFolder(spec.output_url).resume_point()
    assert point is not None
    assert point.is_last
    return point.trained_tokens / watch.seconds


def resuming(folder: Path, base_model: Path) -> dict[str, float]:
    """Return 1 where an adapter has the same bytes whether its training was interrupted or not."""
    rows = write_rows(folder / "rows.jsonl", INTERRUPTED_ROWS)
    often = TrainingResources(resume_interval_s=0.0, resume_share=1.0)

    def spec(name: str, resumed: Path | None = None) -> TrainingSpec:
        found = spec_of(base_model, folder / name, rows, batch_size=INTERRUPTED_BATCH, resumed=resumed)
        return msgspec.structs.replace(found, resources=often)

    _train(spec("whole"))
    try:
        _train(spec("first"), _Interrupts())
    except _Interrupted:
        _train(spec("second", resumed=folder / "first"))
    return {"resume_equal": float(_weights(folder / "second") == _weights(folder / "whole"))}


def _weights(attempt: Path) -> bytes:
    [newest] = attempt.glob("resume/*")
    return (newest / ADAPTER_WEIGHTS).read_bytes()


def _train(spec: TrainingSpec, *callbacks: TrainerCallback) -> None:
    def prepare(trainer: Any) -> Any:
        for callback in callbacks:
            trainer.add_callback(callback)
        return trainer

    torch.set_num_threads(thread_count(spec.resources))
    worker = TrainingWorker(0, 1, on_epoch=lambda _metrics: None, prepare=prepare)
    training_method(spec.method)(spec, worker)
