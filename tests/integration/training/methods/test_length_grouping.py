"""Rows of like length come together: less padding, each row once an epoch, the same bytes after an interruption."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
from transformers import Trainer

from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import spec_of, write_rows
from tokenyard.core.training import ADAPTER_WEIGHTS, TrainingResources, TrainingSpec
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.methods import TrainingWorker, training_method

ROWS, BATCH, EPOCHS = 26, 4, 2


class Killed(Exception):
    """What stands here for a death of the process."""


def row(length: int, method: str) -> dict[str, Any]:
    question = {"role": "user", "content": "x" * length}
    if method == "supervised":
        return {"messages": [question, {"role": "assistant", "content": "yes"}]}
    answers = {"preferred_output": "yes", "non_preferred_output": "no"}
    said = {name: [{"role": "assistant", "content": answer}] for name, answer in answers.items()}
    return {"input": {"messages": [question]}, **said}


def trained(spec: TrainingSpec, *, on_epoch: Callable[[dict[str, float]], None] = lambda _metrics: None) -> int:
    """Train in this process; return how many places of all passes were padding."""
    padding = 0

    def prepare(trainer: Trainer) -> Trainer:
        step = trainer.training_step

        def noting(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            nonlocal padding
            padding += int((inputs["attention_mask"] == 0).sum())
            return step(model, inputs, *rest)

        trainer.training_step = noting
        return trainer

    training_method(spec.method)(spec, TrainingWorker(0, 1, on_epoch=on_epoch, prepare=prepare))
    return padding


@pytest.mark.parametrize("method", ["supervised", pytest.param("dpo", marks=pytest.mark.long)])
def test_there_is_less_padding_and_nothing_else_changes(tmp_path: Path, method: str) -> None:
    base = save_tiny_model(tmp_path / "base")
    lengths = random.Random(1).sample(range(1, 90), ROWS)
    file = write_rows(tmp_path / "rows.jsonl", [row(length, method) for length in lengths])

    def spec(name: str, *, grouped: bool, attempt: int = 1) -> TrainingSpec:
        (tmp_path / name).mkdir(exist_ok=True)
        asked: dict[str, Any] = {"packing": False, "group_by_length": grouped, "beta": 0.1 if method == "dpo" else None}
        resumed: dict[str, Any] = {"resume_url": f"file://{tmp_path / name}/1"} if attempt > 1 else {}
        often = TrainingResources(threads=1, resume_interval_s=0.0, resume_share=1.0)
        plain: dict[str, Any] = {"n_epochs": EPOCHS, "batch_size": BATCH, "resources": often, "attempt": attempt}
        return spec_of(base, tmp_path / name, file, method=method, **plain, **asked, **resumed)

    def killed(_metrics: dict[str, float]) -> None:
        raise Killed

    assert trained(spec("grouped", grouped=True)) < trained(spec("plain", grouped=False)) / 3
    with pytest.raises(Killed):
        trained(spec("cut", grouped=True), on_epoch=killed)
    trained(spec("cut", grouped=True, attempt=2))
    points = [AttemptFolder(f"file://{tmp_path}/{end}").resume_point() for end in ("grouped/1", "plain/1", "cut/2")]
    assert len({(point.step_number, point.trained_tokens) for point in points if point is not None}) == 1
    [whole], [cut] = ((tmp_path / end).glob(f"resume/*/{ADAPTER_WEIGHTS}") for end in ("grouped/1", "cut/2"))
    assert whole.read_bytes() == cut.read_bytes()
