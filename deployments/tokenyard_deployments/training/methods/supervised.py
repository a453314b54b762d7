"""Supervised fine-tuning: TRL's trainer and PEFT's LoRA over the frozen base model."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from tokenyard.core.training import BASE_LEARNING_RATE, TrainingSpec
from tokenyard_deployments.training.attempt import AttemptFolder, DatasetCounts
from tokenyard_deployments.training.evaluation.held_out import evaluate
from tokenyard_deployments.training.examples import Example, count_tokens, encode, read_rows
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.machine import base_dtype, micro_batch
from tokenyard_deployments.training.methods import TrainingWorker
from tokenyard_deployments.training.reporting import TrainingReporter
from tokenyard_deployments.training.resuming import ResumePoints, resume

_WARMUP = 0.05  # part of all steps


def train(spec: TrainingSpec, worker: TrainingWorker) -> None:
    """Train, as `TrainingMethod` says."""
    writes = worker.rank == 0
    folder = AttemptFolder(spec.output_url)
    tokenizer = AutoTokenizer.from_pretrained(spec.base_model_path)
    training = encode(read_rows(spec.training_url), tokenizer, spec.max_seq_length)
    validation = encode(read_rows(spec.validation_url), tokenizer, spec.max_seq_length) if spec.validation_url else []
    model = _model(spec)
    if writes:
        _begin(spec, folder, model, training, validation)
    with tempfile.TemporaryDirectory(prefix="tokenyard-train-") as scratch:
        trainer = SFTTrainer(
            model=model,
            args=_settings(spec, scratch, training, worker.workers),
            train_dataset=_dataset(training),
            processing_class=tokenizer,
            callbacks=[
                TrainingReporter(folder, validation, writes=writes, on_epoch=worker.on_epoch),
                ResumePoints(spec, folder, worker, [len(example.input_ids) for example in training]),
            ],
        )
        checkpoint = resume(spec, folder, Path(scratch) / "resume", report=writes)
        worker.prepare(trainer).train(resume_from_checkpoint=checkpoint)


def _model(spec: TrainingSpec) -> Any:
    base = AutoModelForCausalLM.from_pretrained(
        spec.base_model_path,
        dtype=base_dtype(spec.resources),
        device_map={"": "cuda"} if spec.resources.gpus and spec.resources.num_workers == 1 else None,
        trust_remote_code=False,
        use_safetensors=True,
    )
    set_seed(spec.seed)  # the adapter starts from random weights
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        target_modules=list(spec.lora.target_modules),
        lora_dropout=0.0,
        bias="none",
    )
    try:
        return get_peft_model(base, lora)
    except ValueError:
        raise TrainingFailed("invalid_target_modules", "The base model has none of the layers to train.") from None


def _begin(
    spec: TrainingSpec, folder: AttemptFolder, model: Any, training: Sequence[Example], validation: Sequence[Example]
) -> None:
    tokens = count_tokens(training)
    longest = max(len(example.input_ids) for example in training)
    folder.add_event(
        f"Training on {len(training)} rows of {tokens} tokens for {spec.hyperparameters.n_epochs} epochs; "
        f"the longest row has {longest} tokens"
    )
    idle = sum(not example.has_lesson for example in training)
    if idle:
        folder.add_event(f"In {idle} rows nothing is left to learn after cutting them", level="warn")
    base_loss = None
    if validation:
        with model.disable_adapter():
            base_loss = evaluate(model, validation).loss
        folder.add_event(f"Validation loss of the base model={base_loss:.2f}")
    folder.write_counts(DatasetCounts(tokens, base_loss))


def _settings(spec: TrainingSpec, scratch: str, training: Sequence[Example], workers: int) -> SFTConfig:
    wanted, gpu = spec.hyperparameters, spec.resources.gpus > 0
    rows = max(1, wanted.batch_size // workers)
    micro = micro_batch(rows, max(len(example.input_ids) for example in training), gpu=gpu)
    steps = wanted.n_epochs * -(-len(training) // (rows * workers))
    return SFTConfig(
        output_dir=f"{scratch}/out",
        num_train_epochs=wanted.n_epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=rows // micro,
        learning_rate=BASE_LEARNING_RATE * wanted.learning_rate_multiplier,
        lr_scheduler_type="linear",
        warmup_steps=max(1, round(steps * _WARMUP)),
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=spec.seed,
        data_seed=spec.seed,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=gpu,
        use_cpu=not gpu,
        bf16=gpu,
        fp16=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="epoch",
        save_total_limit=1,
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
    )


def _dataset(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_list([{"input_ids": example.input_ids, "labels": example.labels} for example in examples])
