"""An adapter that does not fit the base model never reaches the engine, and nobody holds its copy."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.finetune.adapter_files import DIMENSION, adapter_weights, base_weights, lora_config
from tokenyard.core.adapters import AdapterRef, AdapterRules
from tokenyard.core.ids import AdapterId
from tokenyard.core.replica import ADAPTER_UNFIT
from tokenyard_deployments.serving.adapters.files import AdapterRejected
from tokenyard_deployments.serving.adapters.fitting import FittingAdapters

REF = AdapterRef(AdapterId("a"), "ft:small:acme:bot:a", "adapters/org_acme/a", "0" * 64)


class Copies:
    """A source of one copy, which is also the copy: the test makes it."""

    def __init__(self, folder: Path, weights: bytes, config: bytes) -> None:
        self.folder = folder
        self.held = 0
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(weights)
        (folder / "adapter_config.json").write_bytes(config)

    async def fetch(self, adapter: AdapterRef) -> "Copies":
        self.held += 1
        return self

    def release(self) -> None:
        self.held -= 1


def fitting(tmp_path: Path, copies: Copies, *, max_rank: int = 8) -> FittingAdapters:
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(base_weights())
    return FittingAdapters(copies, base, AdapterRules(max_rank))


async def test_one_that_fits_is_let_through(tmp_path: Path) -> None:
    copies = Copies(tmp_path / "copy", adapter_weights(rank=4), lora_config(rank=4))
    assert await fitting(tmp_path, copies).fetch(REF) is copies
    assert copies.held == 1


@pytest.mark.parametrize(
    ("weights", "config", "max_rank"),
    [
        (adapter_weights(rank=4, dimension=DIMENSION + 1), lora_config(rank=4), 8),
        (adapter_weights(rank=4, layers=3), lora_config(rank=4), 8),
        (adapter_weights(rank=4), lora_config(rank=2), 8),
        (adapter_weights(rank=8), lora_config(rank=8), 4),
        (b"\x80\x05weights", lora_config(rank=4), 8),
    ],
    ids=["another shape", "another layer", "another rank than its config says", "over the rank", "no safetensors"],
)
async def test_one_that_does_not_is_rejected_and_let_go(
    tmp_path: Path, weights: bytes, config: bytes, max_rank: int
) -> None:
    copies = Copies(tmp_path / "copy", weights, config)
    with pytest.raises(AdapterRejected) as refused:
        await fitting(tmp_path, copies, max_rank=max_rank).fetch(REF)
    assert refused.value.code == ADAPTER_UNFIT
    assert str(tmp_path) not in refused.value.message
    assert copies.held == 0


async def test_a_base_in_another_format_is_left_to_the_engine(tmp_path: Path) -> None:
    copies = Copies(tmp_path / "copy", adapter_weights(rank=4, dimension=99), lora_config(rank=4))
    source = fitting(tmp_path, copies)
    (tmp_path / "base" / "model.safetensors").unlink()
    assert await source.fetch(REF) is copies


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 32}, "not 32"),
        ({"r": 0}, "not 0"),
        ({"peft_type": "IA3"}, "not a LoRA"),
        ({"target_modules": ["q_proj", "lm_head"]}, "Only these layers"),
        ({"target_modules": "all-linear"}, "Only these layers"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
    ],
)
async def test_a_kind_of_adapter_that_cannot_be_served_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    config = json.dumps({**json.loads(lora_config(rank=4)), **change}).encode()
    with pytest.raises(AdapterRejected, match=message) as refused:
        await fitting(tmp_path, Copies(tmp_path / "copy", adapter_weights(rank=4), config)).fetch(REF)
    assert refused.value.code == ADAPTER_UNFIT
