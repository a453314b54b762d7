"""The model that every method trains: a frozen base and a LoRA adapter over it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed

from tokenyard.core.training import TrainingSpec
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.machine import base_dtype


def adapted_model(spec: TrainingSpec) -> Any:
    """Return the base model with a new adapter, or raise `TrainingFailed` where it has none of the layers to train."""
    base = base_model(spec)
    with checked_modules():
        return get_peft_model(base, lora_config(spec))


def base_model(spec: TrainingSpec) -> Any:
    """Return the base model; the seed is set for the adapter, which starts from random weights."""
    base = AutoModelForCausalLM.from_pretrained(
        spec.base_model_path,
        dtype=base_dtype(spec.resources),
        device_map={"": "cuda"} if spec.resources.gpus and spec.resources.num_workers == 1 else None,
        trust_remote_code=False,
        use_safetensors=True,
    )
    set_seed(spec.seed)
    return base


def lora_config(spec: TrainingSpec) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        target_modules=list(spec.lora.target_modules),
        lora_dropout=0.0,
        bias="none",
    )


@contextmanager
def checked_modules() -> Iterator[None]:
    """Say what PEFT means where it finds none of the layers."""
    try:
        yield
    except ValueError as error:
        if "Target modules" not in str(error):
            raise
        raise TrainingFailed("invalid_target_modules", "The base model has none of the layers to train.") from None
