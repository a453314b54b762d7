"""Files of what a job's steps measured: a table in the columns of OpenAI's result files, and TensorBoard's events."""

import csv
import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tokenyard.finetune.results.wandb_run import LoggedStep

COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
    "full_valid_loss": "full_valid_loss",
    "full_valid_mean_token_accuracy": "full_valid_mean_token_accuracy",
}
"""By their names, from what of an event's data; what else a method measures follows under its own name."""
_NO_METRICS = ("total_steps", "epoch")


class StepMetrics(NamedTuple):
    """What was told of a step, and when, in unix seconds."""

    told_at: int
    data: Mapping[str, object]


def step_csv(told: Iterable[StepMetrics]) -> bytes:
    """Return the table; of a step that was told twice, because an attempt was lost, what was told last."""
    steps = [each.data for each in _by_step(told).values()]
    others = {name for data in steps for name in data} - {*COLUMNS.values(), *_NO_METRICS}
    sources = COLUMNS | {name: name for name in sorted(others)}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(sources)
    for data in steps:
        lines.writerow([data.get(source) for source in sources.values()])
    return text.getvalue().encode()


def tensorboard_events(told: Iterable[StepMetrics]) -> bytes:
    """Return a TensorBoard event file with a scalar for each figure of each step, as `step_csv` has them.

    `train_loss` stands as `train/loss` and so on, so that TensorBoard shows each group together. Blocks for a moment.
    """
    # Heavy, and few jobs ask for it.
    from tensorboardX import SummaryWriter  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="tokenyard-tensorboard-") as folder:
        with SummaryWriter(logdir=folder) as writer:
            for step, each in _by_step(told).items():
                for name, value in _scalars(each.data):
                    writer.add_scalar(name, value, global_step=step, walltime=float(each.told_at))
        (file,) = Path(folder).iterdir()
        return file.read_bytes()


def logged_steps(told: Iterable[StepMetrics]) -> list[LoggedStep]:
    """Return the figures of each step under the names that TensorBoard has them by."""
    return [LoggedStep(step, each.told_at, dict(_scalars(each.data))) for step, each in _by_step(told).items()]


def _by_step(told: Iterable[StepMetrics]) -> dict[int, StepMetrics]:
    steps = {step: each for each in told if isinstance(step := each.data.get("step"), int)}
    return dict(sorted(steps.items()))


def _scalars(data: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in data.items():
        if name not in ("step", *_NO_METRICS) and isinstance(value, (int, float)):
            yield name.replace("train_", "train/", 1).replace("valid_", "valid/", 1), float(value)
