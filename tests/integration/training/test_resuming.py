"""Training that is interrupted after any step, and goes on, ends in the same bytes; without Ray, on a tiny model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("trl")
import torch
from transformers import Trainer, TrainerCallback

from support.fakes.tiny_model import save_tiny_model
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import ADAPTER_WEIGHTS, Hyperparameters, TrainingResources, TrainingSpec
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.methods import TrainingWorker, training_method

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS, EPOCHS, BATCH = 80, 2, 36  # a step is two passes, and an epoch's last one has eight rows
STEPS = EPOCHS * 3
RESOURCES = TrainingResources(threads=1, resume_interval_s=0.0, resume_share=1.0)


class Killed(Exception):
    """What stands here for a death of the process."""


class _Dies(TrainerCallback):  # type: ignore[misc]
    def __init__(self, after: int) -> None:
        self._after = after

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._after:
            raise Killed


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of many lengths, some of which are cut."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps(row("x" * (2 * n + 1), str(n))) + "\n" for n in range(ROWS)))
    return file


def row(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def spec_of(base_model: Path, rows: Path, output: Path, *, resumed: Path | None = None, seed: int = 3) -> TrainingSpec:
    return TrainingSpec(
        job=JobId("ftjob-a"),
        attempt=1,
        organization=OrganizationId("org_test"),
        base_model="tiny",
        method="supervised",
        base_model_path=str(base_model),
        training_url=f"file://{rows}",
        validation_url=f"file://{rows}",
        output_url=f"file://{output}",
        resume_url=f"file://{resumed}" if resumed else None,
        hyperparameters=Hyperparameters(n_epochs=EPOCHS, batch_size=BATCH, learning_rate_multiplier=20.0),
        seed=seed,
        max_seq_length=128,
        max_lora_rank=16,
        resources=RESOURCES,
    )


def train(spec: TrainingSpec, *, dies_after: int | None = None) -> list[int]:
    """Train in this process; return the tokens of each step as the model saw them."""
    seen: list[int] = []

    def prepare(trainer: Trainer) -> Trainer:
        if dies_after is not None:
            trainer.add_callback(_Dies(dies_after))
        _note_tokens(trainer, seen)
        return trainer

    worker = TrainingWorker(0, 1, on_epoch=lambda _metrics: None, prepare=prepare)
    training_method(spec.method)(spec, worker)
    return seen


def _note_tokens(trainer: Trainer, seen: list[int]) -> None:
    step = trainer.training_step

    def noting(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        number = trainer.state.global_step
        seen.extend([0] * (number + 1 - len(seen)))
        seen[number] += tokens_in(inputs)
        return step(model, inputs, *rest)

    trainer.training_step = noting


def tokens_in(inputs: dict[str, Any]) -> int:
    """Return the tokens that are no padding; in packs, what pads is position 0, and so is only the first of a row."""
    if "attention_mask" in inputs:
        return int(inputs["attention_mask"].sum())
    positions = inputs["position_ids"]
    follows = torch.nn.functional.pad(positions[:, 1:], (0, 1)) == 1
    return int((positions > 0).sum() + follows.sum())


def weights(folder: Path) -> bytes:
    [newest] = folder.glob("resume/*")
    return (newest / ADAPTER_WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def whole(base_model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sequence[int]]:
    """A run that nothing interrupts, and the tokens of its steps."""
    folder = tmp_path_factory.mktemp("whole") / "1"
    return folder, train(spec_of(base_model, rows, folder))


@pytest.mark.parametrize("step", range(1, STEPS))
def test_interrupted_after_any_step_it_ends_in_the_same_bytes(
    base_model: Path, rows: Path, whole: tuple[Path, Sequence[int]], tmp_path: Path, step: int
) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    with pytest.raises(Killed):
        train(spec_of(base_model, rows, first), dies_after=step)
    expected, seen = whole
    assert point(first) == (step, sum(seen[:step])), "what the model saw is what is counted"
    train(spec_of(base_model, rows, second, resumed=first))
    assert weights(second) == weights(expected)
    assert point(second) == (STEPS, point(expected)[1])
    ours, theirs = AttemptFolder(f"file://{second}").checkpoints(), AttemptFolder(f"file://{expected}").checkpoints()
    assert ours[-1].metrics == theirs[-1].metrics


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(
    base_model: Path, rows: Path, whole: tuple[Path, Sequence[int]], tmp_path: Path
) -> None:
    for seed in (3, 4):
        train(spec_of(base_model, rows, tmp_path / str(seed), seed=seed))
    assert weights(tmp_path / "3") == weights(whole[0])
    assert weights(tmp_path / "4") != weights(whole[0])


def test_a_whole_run_counts_every_row_once_an_epoch(whole: tuple[Path, Sequence[int]]) -> None:
    folder, seen = whole
    counts = AttemptFolder(f"file://{folder}").counts()
    assert counts is not None
    assert point(folder)[1] == sum(seen) == EPOCHS * counts.tokens_per_epoch


def test_asked_to_pause_it_ends_at_the_next_step(base_model: Path, rows: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    (first / "pause").write_text("{}")
    train(spec_of(base_model, rows, first))
    assert point(first)[0] == 1
    train(spec_of(base_model, rows, second, resumed=first))
    assert point(second)[0] == STEPS


def test_out_of_time_it_keeps_what_it_has(base_model: Path, rows: Path, tmp_path: Path) -> None:
    spec = spec_of(base_model, rows, tmp_path / "1")
    short = msgspec.structs.replace(spec, resources=msgspec.structs.replace(RESOURCES, timeout_s=0.0))
    with pytest.raises(TrainingFailed) as failed:
        train(short)
    assert (failed.value.error.code, failed.value.error.retryable) == ("training_timeout", False)
    assert point(tmp_path / "1")[0] == 1


def test_a_point_that_is_gone_is_no_silent_fresh_start(base_model: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed) as failed:
        train(spec_of(base_model, rows, tmp_path / "2", resumed=tmp_path / "1"))
    assert (failed.value.error.code, failed.value.error.retryable) == ("checkpoint_lost", True)


def point(folder: Path) -> tuple[int, int]:
    """Return step and tokens of the only resume point."""
    found = AttemptFolder(f"file://{folder}").resume_point()
    assert found is not None
    assert len(list((folder / "resume").iterdir())) == 1
    return found.step_number, found.trained_tokens
