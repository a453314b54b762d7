"""What a spec sets is what training does: where it begins, how the adapter is scaled, when it ends."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

pytest.importorskip("trl")
from safetensors.numpy import load_file

from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import spec_of, train, write_rows
from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_FOLDER,
    ADAPTER_WEIGHTS,
    MANIFEST_FILE,
    AdapterManifest,
    LoraSettings,
    TrainingCheckpoint,
    TrainingSpec,
)
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.export import export_adapter
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.methods.arguments import trainer_arguments
from tokenyard_deployments.training.methods.early_stopping import EarlyStopping

STILL = 1e-9  # a learning rate's multiplier with which nothing moves
LORA = LoraSettings(rank=4, alpha=8, target_modules=("q_proj", "v_proj"))
CHATS = [
    {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"yes sir {n}"}]}
    for n in range(8)
]
PAIRS = [
    {
        "input": {"messages": [{"role": "user", "content": f"Say {n}"}]},
        "preferred_output": [{"role": "assistant", "content": f"yes sir {n}"}],
        "non_preferred_output": [{"role": "assistant", "content": f"nope {n}"}],
    }
    for n in range(8)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> AttemptFolder:
    """An attempt that left an adapter behind."""
    spec = chats(base, tmp_path_factory.mktemp("tuned"), learning_rate_multiplier=20.0)
    folder = train(spec)
    export_adapter(spec, folder, folder, folder.checkpoints()[-1].path)
    return folder


def chats(base: Path, folder: Path, **changed: Any) -> TrainingSpec:
    plain: dict[str, Any] = {"n_epochs": 2, "batch_size": 4, "lora": LORA}
    return spec_of(base, folder, write_rows(folder / "rows.jsonl", CHATS), method="supervised", **plain | changed)


def pairs(base: Path, folder: Path, **changed: Any) -> TrainingSpec:
    file = write_rows(folder / "pairs.jsonl", PAIRS)
    plain: dict[str, Any] = {"n_epochs": 1, "batch_size": 4, "lora": LORA, "beta": 0.1}
    plain["validation_url"] = f"file://{file}"
    return spec_of(base, folder, file, method="dpo", **plain | changed)


def weights(folder: AttemptFolder) -> dict[str, Any]:
    found: dict[str, Any] = load_file(Path(folder.root) / folder.checkpoints()[-1].path / ADAPTER_WEIGHTS)
    return found


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_it_begins_with_the_adapter_of_a_model(base: Path, tuned: AttemptFolder, tmp_path: Path, method: str) -> None:
    spec = (chats if method == "supervised" else pairs)(
        base, tmp_path, learning_rate_multiplier=STILL, start_url=f"file://{tuned.root}"
    )
    folder = train(spec)
    expected, found = weights(tuned), weights(folder)
    assert found.keys() == expected.keys()
    assert all(abs(found[name] - expected[name]).max() < 1e-6 for name in found)
    assert any(abs(found[name]).max() > 1e-3 for name in found if "lora_B" in name)
    if method == "dpo":  # its reference is the model that it began with, not the base
        assert abs(folder.checkpoints()[-1].metrics["valid_reward_margin"]) < 1e-4


def test_the_model_to_begin_with_must_be_of_this_base(base: Path, tuned: AttemptFolder, tmp_path: Path) -> None:
    copied = tmp_path / "start" / ADAPTER_FOLDER
    copied.mkdir(parents=True)
    for file in (Path(tuned.root) / ADAPTER_FOLDER).iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    manifest = msgspec.json.decode((copied / MANIFEST_FILE).read_bytes(), type=AdapterManifest)
    changed = msgspec.structs.replace(manifest, base_content_hash="0" * 64)
    (copied / MANIFEST_FILE).write_bytes(msgspec.json.encode(changed))
    with pytest.raises(TrainingFailed) as failed:
        train(chats(base, tmp_path, start_url=f"file://{tmp_path}/start"))
    assert failed.value.error.code == "base_model_changed"


def test_the_adapter_is_what_was_asked_for(base: Path, tmp_path: Path) -> None:
    helper = pytest.importorskip("vllm.lora.peft_helper")
    lora = LoraSettings(rank=16, alpha=8, target_modules=("o_proj",), use_rslora=True, dropout=0.5)
    spec = chats(base, tmp_path, n_epochs=1, lora=lora)
    folder = train(spec)
    export_adapter(spec, folder, folder, folder.checkpoints()[-1].path)
    config = json.loads((Path(folder.root) / ADAPTER_FOLDER / ADAPTER_CONFIG).read_bytes())
    assert (config["r"], config["target_modules"], config["lora_dropout"]) == (16, ["o_proj"], 0.5)
    served = helper.PEFTHelper.from_dict(config)
    assert served.vllm_lora_scaling_factor == 8 / 16**0.5


def test_dropout_is_not_switched_off_with_that_of_the_base(base: Path, tmp_path: Path) -> None:
    found = []
    for dropout in (0.0, 0.5):
        folder = tmp_path / str(dropout)
        folder.mkdir()
        lora = msgspec.structs.replace(LORA, dropout=dropout)
        found.append(weights(train(pairs(base, folder, lora=lora, learning_rate_multiplier=20.0))))
    assert any((found[0][name] != found[1][name]).any() for name in found[0])


def test_how_the_steps_go_is_the_trainers_to_know(base: Path, tmp_path: Path) -> None:
    def arguments(**asked: Any) -> dict[str, Any]:
        spec = chats(base, tmp_path, n_epochs=10, **asked)
        return trainer_arguments(spec, "/scratch", rows=40, tokens_of=lambda rows: 9 * rows, workers=1)

    names = ("lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm")
    assert [arguments()[name] for name in names] == ["linear", 5, 0.0, 1.0]
    asked = {"lr_scheduler_type": "constant", "warmup_ratio": 0.25, "weight_decay": 0.1, "max_grad_norm": 0.5}
    assert [arguments(**asked)[name] for name in names] == ["constant_with_warmup", 25, 0.1, 0.5]
    assert arguments(lr_scheduler_type="cosine", warmup_ratio=0.0)["warmup_steps"] == 0


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [([3.0, 2.0, 2.5], 1, True), ([3.0, 2.0, 2.5], 2, False), ([3.0, 2.0, 2.0], 1, True), ([2.0], 1, False)],
)
def test_training_ends_once_the_loss_falls_no_more(
    tmp_path: Path, losses: list[float], patience: int, stops: bool
) -> None:
    folder = AttemptFolder(f"file://{tmp_path}/attempt")
    for epoch, loss in enumerate(losses, start=1):
        checkpoint = TrainingCheckpoint(
            step_number=epoch, epoch=epoch, created_at=1, path=f"checkpoints/{epoch}", metrics={"valid_loss": loss}
        )
        folder.save_checkpoint(tmp_path, checkpoint)
    control = SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(global_step=len(losses), max_steps=10)
    EarlyStopping(folder, patience, writes=True).on_save(None, state, control)
    assert control.should_training_stop is stops
