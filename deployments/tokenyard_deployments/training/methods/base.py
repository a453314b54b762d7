"""The frozen base that an adapter is trained over, as the machine holds it."""

from importlib.util import find_spec
from typing import Any

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tokenyard.core.training import TrainingSpec
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.machine import base_dtype
from tokenyard_deployments.training.methods.sharding import is_sharded


def load_base(spec: TrainingSpec) -> Any:
    """Return the base model; raises `TrainingFailed` where the machine is not one for what was set."""
    _check_machine(spec)
    on_gpu = spec.resources.gpus > 0 and not is_sharded(spec.resources)
    return AutoModelForCausalLM.from_pretrained(
        spec.base_model_path,
        dtype=base_dtype(spec.resources),
        device_map={"": PartialState().device} if on_gpu else None,
        quantization_config=quantization(spec),
        trust_remote_code=False,
        use_safetensors=True,
    )


def quantization(spec: TrainingSpec) -> BitsAndBytesConfig | None:
    """Return how the base is held in four bits, as QLoRA does: computed in what it would be held in otherwise."""
    if spec.quantization is None:
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=base_dtype(spec.resources),
    )


def _check_machine(spec: TrainingSpec) -> None:
    if torch.cuda.is_available():
        if spec.quantization is not None and find_spec("bitsandbytes") is None:
            message = "Holding the base in four bits needs the package bitsandbytes on the training machines."
            raise TrainingFailed("quantization_not_available", message)
    elif spec.quantization is not None:
        raise TrainingFailed("gpu_required", "Holding the base in four bits while training needs a GPU.")
    elif is_sharded(spec.resources):
        raise TrainingFailed("gpu_required", "Spreading a model over workers needs a GPU for each of them.")
