"""A base that is held in four bits: set as QLoRA needs it, and refused in words where it cannot be."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
import msgspec
import torch

from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import spec_of, train, write_rows
from tokenyard.core.training import TrainingResources, TrainingSpec
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.methods.base import quantization

ROWS = [{"messages": [{"role": "user", "content": "Say it"}, {"role": "assistant", "content": "yes"}]}] * 2


@pytest.fixture
def spec(tmp_path: Path) -> TrainingSpec:
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    base = save_tiny_model(tmp_path / "base")
    asked: dict[str, Any] = {"n_epochs": 1, "batch_size": 2, "resources": TrainingResources(gpus=1)}
    return spec_of(base, tmp_path, file, method="supervised", quantization="nf4", **asked)


def test_four_bits_are_computed_in_sixteen(spec: TrainingSpec) -> None:
    config = quantization(spec)
    assert config is not None
    config.post_init()
    assert config.quantization_method() == "nf4"
    assert (config.bnb_4bit_compute_dtype, config.bnb_4bit_use_double_quant) == (torch.bfloat16, True)
    assert quantization(msgspec.structs.replace(spec, quantization=None)) is None


@pytest.mark.parametrize(("gpu", "code"), [(False, "gpu_required"), (True, "quantization_not_available")])
def test_it_is_refused_where_it_cannot_be(
    spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, gpu: bool, code: str
) -> None:
    """Where these tests run there is no bitsandbytes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with pytest.raises(TrainingFailed) as refused:
        train(spec)
    assert (refused.value.error.code, refused.value.error.retryable) == (code, False)
