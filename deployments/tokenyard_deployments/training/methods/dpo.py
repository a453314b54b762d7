"""Direct preference optimization: TRL's trainer, without a second model in memory.

The reference is the base with the adapter switched off, or where training begins with the adapter of a fine-tuned
model, a frozen copy of that.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from datasets import Dataset
from peft.tuners.lora import LoraLayer
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer

from tokenyard.core.datasets.preference_rows import check_preference_row
from tokenyard.core.training import TrainingSpec
from tokenyard_deployments.training.attempt import AttemptFolder, DatasetCounts
from tokenyard_deployments.training.evaluation.preferences import LogProbs, answer_log_probs, evaluate_preferences
from tokenyard_deployments.training.examples import checked_rows
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.methods import TrainingWorker
from tokenyard_deployments.training.methods.arguments import trainer_arguments
from tokenyard_deployments.training.methods.early_stopping import early_stopping
from tokenyard_deployments.training.methods.lora import adapted_model
from tokenyard_deployments.training.methods.sharding import sharding_arguments
from tokenyard_deployments.training.preferences import Pair, Pairs, encode_preferences
from tokenyard_deployments.training.reporting import Measure, TrainingReporter
from tokenyard_deployments.training.resuming import ResumePoints, resume
from tokenyard_deployments.training.steps.loading import PassTrainer
from tokenyard_deployments.training.steps.order import row_order
from tokenyard_deployments.training.steps.passes import WorkerPasses
from tokenyard_deployments.training.steps.tokens import row_count

_START_LOSS = math.log(2)  # of a model that has not moved from its reference
_REFERENCE = "ref"  # TRL's name of it
_BLANK: Mapping[str, list[int]] = {"prompt_ids": [0, 0], "chosen_ids": [], "rejected_ids": []}  # its loss is that
_MEANS = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")


class _PreferenceTrainer(PassTrainer, DPOTrainer):  # type: ignore[misc]
    """Takes rows that are tokens already, rendered as serving renders them, and learns all of a step alike.

    TRL's own loss is the mean of a pass: rows of a pass that is not full would weigh more, and blank ones count.
    """

    loss_is_scaled_for_ga = True
    blank = _BLANK

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        mean = super().compute_loss(model, inputs)
        answers = inputs["completion_mask"].any(dim=1)
        places, rows = len(answers) // 2, int(answers.sum()) // 2
        workers = self.passes.workers
        weight = workers / self.passes.order.rows_of_step(self.state.global_step)  # gradients are means over workers
        for name in _MEANS:  # of each pass over all workers; the trainer takes the mean over passes
            told = self._metrics["train"][name]
            told[-1] *= places * weight * self.current_gradient_accumulation_steps
        return (mean * places - _START_LOSS * (places - rows)) * weight


def train(spec: TrainingSpec, worker: TrainingWorker) -> None:
    """Train, as `TrainingMethod` says."""
    writes = worker.rank == 0
    folder = AttemptFolder(spec.output_url)
    tokenizer = AutoTokenizer.from_pretrained(spec.base_model_path)
    encoded = partial(encode_preferences, tokenizer=tokenizer, max_seq_length=spec.max_seq_length)
    training = encoded(checked_rows(spec.training_url, check_preference_row))
    validation = encoded(checked_rows(spec.validation_url, check_preference_row)).pairs if spec.validation_url else []
    if writes:
        _begin(spec, folder, training, validation)
    with tempfile.TemporaryDirectory(prefix="tokenyard-train-") as scratch:
        trainer = _trainer(spec, scratch, training.pairs, tokenizer, worker)
        measure = _measure(spec, trainer.model, validation) if validation and worker.measures(spec) else None
        trainer.add_callback(TrainingReporter(folder, measure, writes=writes, on_epoch=worker.on_epoch))
        for callback in early_stopping(spec, folder, writes=writes):
            trainer.add_callback(callback)
        trainer.add_callback(ResumePoints(spec, folder, worker, row_count(trainer.passes.order)))
        checkpoint = resume(spec, folder, Path(scratch) / "resume", report=writes)
        worker.prepare(trainer).train(resume_from_checkpoint=checkpoint)


def _begin(spec: TrainingSpec, folder: AttemptFolder, training: Pairs, validation: Sequence[Pair]) -> None:
    pairs = training.pairs
    tokens, longest = sum(pair.tokens for pair in pairs), max(pair.longest for pair in pairs)
    folder.add_event(
        f"Training on {len(pairs)} pairs of answers, {tokens} tokens with their prompts, for "
        f"{spec.hyperparameters.n_epochs} epochs; the longest has {longest} tokens"
    )
    if training.left_out:
        message = f"{training.left_out} rows are left out, because an answer is cut off whole"
        folder.add_event(message, level="warn")
    folder.write_counts(DatasetCounts(tokens, {"loss": _START_LOSS} if validation else {}))


def _trainer(
    spec: TrainingSpec, scratch: str, pairs: Sequence[Pair], tokenizer: Any, worker: TrainingWorker
) -> _PreferenceTrainer:
    longest = max(pair.longest for pair in pairs)
    arguments = trainer_arguments(
        spec, scratch, rows=len(pairs), tokens_of=lambda rows: 2 * rows * longest, workers=worker.workers
    )
    model = adapted_model(spec)
    trainer = _PreferenceTrainer(
        model=model,
        args=DPOConfig(**arguments | sharding_arguments(spec.resources, model), beta=_beta(spec)),
        train_dataset=Dataset.from_list([msgspec.structs.asdict(pair) for pair in pairs]),
        processing_class=tokenizer,
    )
    row_tokens = [pair.tokens for pair in pairs]
    trainer.passes = WorkerPasses(
        row_order(spec, row_tokens),
        rank=worker.rank,
        workers=worker.workers,
        rows_a_pass=arguments["per_device_train_batch_size"],
    )
    if spec.start_url is None:
        # TRL keeps a copy of any adapter as the reference; a new one changes nothing yet, so its copy is the base.
        model.delete_adapter(_REFERENCE)
    if spec.lora.dropout:  # TRL has switched off all there is; of the adapter that is trained it was asked for
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                layer.lora_dropout[model.active_adapter].p = spec.lora.dropout
    return trainer


def _measure(spec: TrainingSpec, model: Any, pairs: Sequence[Pair]) -> Measure:
    """Return what measures a model against what `model` is now."""
    reference: LogProbs = answer_log_probs(model, pairs)
    return partial(evaluate_preferences, pairs=pairs, reference=reference, beta=_beta(spec))


def _beta(spec: TrainingSpec) -> float:
    if spec.hyperparameters.beta is None:
        raise TrainingFailed("invalid_hyperparameters", "The method 'dpo' needs a beta.")
    return spec.hyperparameters.beta
