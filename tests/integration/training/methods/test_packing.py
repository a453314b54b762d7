"""Packed or padded, a run has the same steps, the same losses, the same tokens to pay and the same adapter."""

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
import msgspec
from safetensors.torch import load_file

from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import spec_of, train, write_rows
from tokenyard.core.training import ADAPTER_WEIGHTS, TrainingEvent
from tokenyard_deployments.training.attempt import AttemptFolder

CHATS = [
    {
        "messages": [
            {"role": "user", "content": "x" * (1 + n * 7 % 23)},
            {"role": "assistant", "content": "yes " * (1 + n % 9)},
        ]
    }
    for n in range(22)
]
PROMPTS = [{"prompt": "Say " + "x" * (n * 5 % 17 + 1), "completion": " yes" * (1 + n % 7)} for n in range(22)]
TEXTS = [{"text": "All of it is learnt. " * (1 + n % 5)} for n in range(22)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def trained(base: Path, folder: Path, rows: list[Any], *, packing: bool, **changed: Any) -> AttemptFolder:
    folder.mkdir()
    file = write_rows(folder / "rows.jsonl", rows)
    plain: dict[str, Any] = {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 10.0}
    return train(spec_of(base, folder, file, method="supervised", packing=packing, **plain | changed))


def events(folder: AttemptFolder) -> list[TrainingEvent]:
    files = sorted(Path(folder.root).glob("events/*.json"))
    return [msgspec.json.decode(file.read_bytes(), type=TrainingEvent) for file in files]


def losses(folder: AttemptFolder) -> list[float]:
    return [event.data["train_loss"] for event in events(folder) if event.type == "metrics"]


def furthest(ours: AttemptFolder, theirs: AttemptFolder) -> float:
    """Return how far apart two adapters are, as a part of how far one has come from where it began."""
    first, second = (load_file(Path(one.root) / one.checkpoints()[-1].path / ADAPTER_WEIGHTS) for one in (ours, theirs))
    apart = math.sqrt(sum(float((first[name] - second[name]).square().sum()) for name in first if "lora_B" in name))
    return apart / math.sqrt(sum(float(second[name].square().sum()) for name in first if "lora_B" in name))


@pytest.mark.parametrize("rows", [CHATS, PROMPTS, TEXTS], ids=["chats", "completions", "texts"])
def test_a_packed_run_is_the_padded_run(base: Path, tmp_path: Path, rows: list[Any]) -> None:
    packed, padded = (trained(base, tmp_path / str(packs), rows, packing=packs) for packs in (True, False))
    assert not [event for event in events(packed) if "not packed" in event.message], "the tiny model takes packs"
    assert losses(packed) == pytest.approx(losses(padded), rel=1e-4)
    assert len(losses(packed)) == 2 * 3
    ours, theirs = packed.resume_point(), padded.resume_point()
    assert ours is not None
    assert theirs is not None
    assert (ours.step_number, ours.trained_tokens) == (theirs.step_number, theirs.trained_tokens)
    assert furthest(packed, padded) < 0.01
