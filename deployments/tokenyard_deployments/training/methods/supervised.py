"""Supervised fine-tuning: TRL's trainer and PEFT's LoRA over the frozen base model."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tokenyard.core.training import TrainingSpec
from tokenyard_deployments.training.attempt import AttemptFolder, DatasetCounts
from tokenyard_deployments.training.evaluation.held_out import evaluate
from tokenyard_deployments.training.examples import Example, count_tokens, encode, read_rows
from tokenyard_deployments.training.methods import TrainingWorker
from tokenyard_deployments.training.methods.arguments import resume, trainer_arguments
from tokenyard_deployments.training.methods.early_stopping import early_stopping
from tokenyard_deployments.training.methods.lora import adapted_model
from tokenyard_deployments.training.reporting import TrainingReporter


def train(spec: TrainingSpec, worker: TrainingWorker) -> None:
    """Train, as `TrainingMethod` says."""
    writes = worker.rank == 0
    folder = AttemptFolder(spec.output_url)
    tokenizer = AutoTokenizer.from_pretrained(spec.base_model_path)
    training = encode(read_rows(spec.training_url), tokenizer, spec.max_seq_length)
    validation = encode(read_rows(spec.validation_url), tokenizer, spec.max_seq_length) if spec.validation_url else []
    model = adapted_model(spec)
    if writes:
        _begin(spec, folder, model, training, validation)
    longest = max(len(example.input_ids) for example in training)
    measure = partial(evaluate, examples=validation) if validation else None
    with tempfile.TemporaryDirectory(prefix="tokenyard-train-") as scratch:
        arguments = trainer_arguments(spec, scratch, rows=len(training), longest=longest, workers=worker.workers)
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True}),
            train_dataset=_dataset(training),
            processing_class=tokenizer,
            callbacks=[
                TrainingReporter(folder, measure, writes=writes, on_epoch=worker.on_epoch),
                *early_stopping(spec, folder, writes=writes),
            ],
        )
        checkpoint = resume(spec, folder, Path(scratch) / "resume", report=writes)
        worker.prepare(trainer).train(resume_from_checkpoint=checkpoint)


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


def _dataset(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_list([{"input_ids": example.input_ids, "labels": example.labels} for example in examples])
