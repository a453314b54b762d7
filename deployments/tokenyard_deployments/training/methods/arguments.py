"""What every method tells its trainer."""

from collections.abc import Callable, Mapping
from typing import Any

from tokenyard.core.training import BASE_LEARNING_RATES, Schedule, TrainingSpec
from tokenyard_deployments.training.machine import micro_batch

_WARMUP = 0.05  # part of all steps
_SCHEDULES: Mapping[Schedule, str] = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
"""Ours, and what transformers calls them: its plain "constant" would leave the warm-up out."""


def trainer_arguments(
    spec: TrainingSpec, scratch: str, *, rows: int, tokens_of: Callable[[int], int], workers: int
) -> dict[str, Any]:
    """Return the arguments of transformers' trainer for `rows` rows.

    `tokens_of` tells how many tokens so many of them have in memory, padding counted, when they are the longest.
    """
    wanted, gpu = spec.hyperparameters, spec.resources.gpus > 0
    share = -(-wanted.batch_size // workers)
    micro = micro_batch(share, tokens_of, gpu=gpu)
    steps = wanted.n_epochs * -(-rows // wanted.batch_size)
    warmup = _WARMUP if wanted.warmup_ratio is None else wanted.warmup_ratio
    return {
        "output_dir": f"{scratch}/out",
        "num_train_epochs": wanted.n_epochs,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "learning_rate": BASE_LEARNING_RATES[spec.method] * wanted.learning_rate_multiplier,
        "lr_scheduler_type": _SCHEDULES[wanted.lr_scheduler_type or "linear"],
        "warmup_steps": max(1, round(steps * warmup)) if warmup else 0,
        "weight_decay": wanted.weight_decay or 0.0,
        "max_grad_norm": 1.0 if wanted.max_grad_norm is None else wanted.max_grad_norm,
        "seed": spec.seed,
        "data_seed": spec.seed,
        "max_length": None,
        "gradient_checkpointing": gpu,
        "use_cpu": not gpu,
        "bf16": gpu,
        "fp16": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
    }
