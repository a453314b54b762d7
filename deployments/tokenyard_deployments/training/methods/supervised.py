"""Supervised fine-tuning: TRL's trainer and PEFT's LoRA over the frozen base model."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tokenyard.core.training import TrainingSpec
from tokenyard_deployments.training.attempt import AttemptFolder, DatasetCounts
from tokenyard_deployments.training.data.packing import PackingCollator, keeps_rows_apart
from tokenyard_deployments.training.data.shards import StoredExamples, store
from tokenyard_deployments.training.evaluation.held_out import evaluate
from tokenyard_deployments.training.examples import IGNORED, Example, encoded, read_rows
from tokenyard_deployments.training.methods import TrainingWorker
from tokenyard_deployments.training.methods.arguments import trainer_arguments
from tokenyard_deployments.training.methods.early_stopping import early_stopping
from tokenyard_deployments.training.methods.lora import adapted_model
from tokenyard_deployments.training.methods.sharding import sharding_arguments
from tokenyard_deployments.training.reporting import TrainingReporter
from tokenyard_deployments.training.resuming import ResumePoints, resume
from tokenyard_deployments.training.steps.loading import PassTrainer
from tokenyard_deployments.training.steps.order import row_order
from tokenyard_deployments.training.steps.passes import WorkerPasses
from tokenyard_deployments.training.steps.tokens import row_count

_BLANK = {"input_ids": [0, 0], "labels": [IGNORED, IGNORED]}


class _ChatTrainer(PassTrainer, SFTTrainer):  # type: ignore[misc]
    """Learns all tokens of a step alike, whichever worker has them: the trainer counts them over all workers."""

    blank = _BLANK


def train(spec: TrainingSpec, worker: TrainingWorker) -> None:
    """Train, as `TrainingMethod` says."""
    writes = worker.rank == 0
    folder = AttemptFolder(spec.output_url)
    tokenizer = AutoTokenizer.from_pretrained(spec.base_model_path)
    with tempfile.TemporaryDirectory(prefix="tokenyard-train-") as scratch:
        training = _stored(spec.training_url, spec, tokenizer, Path(scratch) / "training")
        validation = (
            _stored(spec.validation_url, spec, tokenizer, Path(scratch) / "validation") if spec.validation_url else ()
        )
        model = adapted_model(spec)
        packs = spec.hyperparameters.packing is not False and keeps_rows_apart(model)
        if writes:
            _begin(spec, folder, model, training, validation)
            if spec.hyperparameters.packing and not packs:
                message = "Rows are not packed: to this model, one behind another is not what it is alone"
                folder.add_event(message, level="warn")
        row_tokens = [len(example.input_ids) for example in training]
        tokens_of = _packed_tokens(row_tokens) if packs else lambda rows: rows * training.longest
        arguments = trainer_arguments(spec, scratch, rows=len(training), tokens_of=tokens_of, workers=worker.workers)
        order = row_order(spec, row_tokens)
        measure = partial(evaluate, examples=validation) if validation and worker.measures(spec) else None
        trainer = _ChatTrainer(
            model=model,
            args=SFTConfig(
                **arguments | sharding_arguments(spec.resources, model), dataset_kwargs={"skip_prepare_dataset": True}
            ),
            train_dataset=training.dataset,
            processing_class=tokenizer,
            callbacks=[
                TrainingReporter(folder, measure, writes=writes, on_epoch=worker.on_epoch),
                *early_stopping(spec, folder, writes=writes),
                ResumePoints(spec, folder, worker, row_count(order)),
            ],
        )
        trainer.passes = WorkerPasses(
            order,
            rank=worker.rank,
            workers=worker.workers,
            rows_a_pass=arguments["per_device_train_batch_size"],
        )
        if packs:
            trainer.data_collator = PackingCollator(trainer.data_collator)
        checkpoint = resume(spec, folder, Path(scratch) / "resume", report=writes)
        worker.prepare(trainer).train(resume_from_checkpoint=checkpoint)


def _stored(url: str, spec: TrainingSpec, tokenizer: Any, folder: Path) -> StoredExamples:
    return store(encoded(read_rows(url), tokenizer, spec.max_seq_length), folder)


def _packed_tokens(row_tokens: Sequence[int]) -> Callable[[int], int]:
    """Return how many tokens so many rows have when they are the longest, without any padding."""
    upto = list(accumulate(sorted(row_tokens, reverse=True), initial=0))
    return lambda rows: upto[min(rows, len(row_tokens))]


def _begin(
    spec: TrainingSpec, folder: AttemptFolder, model: Any, training: StoredExamples, validation: Sequence[Example]
) -> None:
    folder.add_event(
        f"Training on {len(training)} rows of {training.tokens} tokens for {spec.hyperparameters.n_epochs} epochs; "
        f"the longest row has {training.longest} tokens"
    )
    if training.without_lesson:
        folder.add_event(f"In {training.without_lesson} rows nothing is left to learn after cutting them", level="warn")
    base: dict[str, float] = {}
    if validation:
        with model.disable_adapter():
            measured = evaluate(model, validation)
        base = msgspec.structs.asdict(measured)
        folder.add_event(f"Validation loss of the base model={measured.loss:.2f}")
    folder.write_counts(DatasetCounts(training.tokens, base))
