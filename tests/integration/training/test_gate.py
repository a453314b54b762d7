"""The static gate refuses every adapter that must not reach a replica, and lets a good one through."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

from tokenyard.core.adapters import AdapterNotAllowed, AdapterRules  # noqa: E402
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS  # noqa: E402
from tokenyard_deployments.base_models.shapes import base_shapes  # noqa: E402
from tokenyard_deployments.training.gate import check_adapter  # noqa: E402

RULES = AdapterRules(max_rank=8, target_modules=("q_proj", "down_proj"))
BASE = {"model.layers.0.self_attn.q_proj.weight": (16, 12), "model.layers.0.mlp.down_proj.weight": (12, 20)}
Q = "base_model.model.model.layers.0.self_attn.q_proj"
DOWN = "base_model.model.model.layers.0.mlp.down_proj"


def good_weights() -> dict[str, Any]:
    return {
        f"{Q}.lora_A.weight": torch.randn(4, 12),
        f"{Q}.lora_B.weight": torch.randn(16, 4),
        f"{DOWN}.lora_A.weight": torch.randn(4, 20),
        f"{DOWN}.lora_B.weight": torch.randn(12, 4),
    }


def good_config() -> dict[str, Any]:
    return {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "down_proj"], "bias": "none"}


def write(folder: Path, weights: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> Path:
    save_file(weights or good_weights(), str(folder / ADAPTER_WEIGHTS))
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config or good_config()))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(AdapterNotAllowed) as refused:
        check_adapter(folder, BASE, RULES)
    assert str(folder) not in refused.value.message
    return refused.value.code


def test_a_good_adapter_passes(tmp_path: Path) -> None:
    check_adapter(write(tmp_path), BASE, RULES)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"r": 9}, "rank_not_allowed"),
        ({"r": 0}, "rank_not_allowed"),
        ({"r": "4"}, "rank_not_allowed"),
        ({"target_modules": ["q_proj", "lm_head"]}, "module_not_allowed"),
        ({"target_modules": "all-linear"}, "module_not_allowed"),
        ({"peft_type": "IA3"}, "adapter_unsupported"),
        ({"use_dora": True}, "adapter_unsupported"),
        ({"modules_to_save": ["lm_head"]}, "adapter_unsupported"),
        ({"bias": "all"}, "adapter_unsupported"),
        ({"rank_pattern": {"q_proj": 2}}, "adapter_unsupported"),
    ],
)
def test_what_the_config_may_not_say(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    assert refusal(write(tmp_path, config=good_config() | change)) == code


@pytest.mark.parametrize(
    ("name", "tensor", "code"),
    [
        (f"{Q}.lora_A.weight", lambda: torch.randn(4, 13), "shape_mismatch"),
        (f"{Q}.lora_B.weight", lambda: torch.randn(16, 5), "shape_mismatch"),
        (f"{Q}.lora_B.weight", lambda: torch.full((16, 4), float("nan")), "not_finite"),
        (f"{Q}.lora_A.weight", lambda: torch.full((4, 12), float("inf")), "not_finite"),
        (f"{Q}.lora_A.weight", lambda: torch.ones(4, 12, dtype=torch.int8), "dtype_not_allowed"),
        (f"{Q}.lora_A.weight", lambda: torch.ones(4, 12, dtype=torch.float64), "dtype_not_allowed"),
        (f"{Q.replace('layers.0', 'layers.7')}.lora_A.weight", lambda: torch.randn(4, 12), "shape_mismatch"),
        ("base_model.model.lm_head.lora_A.weight", lambda: torch.randn(4, 12), "module_not_allowed"),
        ("base_model.model.model.embed_tokens.weight", lambda: torch.randn(4, 12), "module_not_allowed"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, name: str, tensor: Callable[[], Any], code: str) -> None:
    assert refusal(write(tmp_path, good_weights() | {name: tensor()})) == code


def test_an_adapter_that_does_nothing(tmp_path: Path) -> None:
    weights = {name: torch.zeros_like(t) if "lora_B" in name else t for name, t in good_weights().items()}
    assert refusal(write(tmp_path, weights)) == "all_zero"


def test_half_of_a_pair(tmp_path: Path) -> None:
    weights = good_weights()
    del weights[f"{Q}.lora_B.weight"]
    assert refusal(write(tmp_path, weights)) == "adapter_damaged"


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_truncated_file(tmp_path: Path, kept: int) -> None:
    file = write(tmp_path) / ADAPTER_WEIGHTS
    file.write_bytes(file.read_bytes()[:kept])
    assert refusal(tmp_path) == "adapter_damaged"


def test_a_file_with_bytes_after_its_end(tmp_path: Path) -> None:
    file = write(tmp_path) / ADAPTER_WEIGHTS
    file.write_bytes(file.read_bytes() + b"more")
    assert refusal(tmp_path) == "adapter_damaged"


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / ADAPTER_WEIGHTS).write_bytes(pickle.dumps({"weight": [1, 2, 3]}))
    assert refusal(tmp_path) == "adapter_damaged"
    torch.save(good_weights(), tmp_path / ADAPTER_WEIGHTS)
    assert refusal(tmp_path) == "adapter_damaged"
    write(tmp_path)
    torch.save(good_weights(), tmp_path / "adapter_model.bin")
    assert refusal(tmp_path) == "adapter_damaged"


def test_a_config_that_is_not_json(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / ADAPTER_CONFIG).write_text("{")
    assert refusal(tmp_path) == "adapter_unsupported"


def test_shapes_are_read_from_headers_only(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(3, 5)}, str(tmp_path / "model-1.safetensors"))
    save_file({"b.weight": torch.zeros(7)}, str(tmp_path / "model-2.safetensors"))
    assert base_shapes(tmp_path) == {"a.weight": (3, 5), "b.weight": (7,)}
    with pytest.raises(ValueError, match="no safetensors"):
        base_shapes(tmp_path / "none")
