"""Loss and accuracy of a model on held-out rows, exact over tokens whatever the batches are."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import torch

from tokenyard_deployments.training.examples import IGNORED, Example


class Evaluation(msgspec.Struct, frozen=True):
    """Means over the learnt tokens."""

    loss: float
    mean_token_accuracy: float


def evaluate(model: Any, examples: Sequence[Example]) -> Evaluation:
    """Return how well `model` predicts the learnt tokens of `examples`; the model's mode is kept."""
    was_training = model.training
    model.eval()
    loss, right, count = 0.0, 0, 0
    try:
        with torch.no_grad():
            for example in examples:
                if example.has_lesson:
                    one = _one(model, example)
                    loss, right, count = loss + one[0], right + one[1], count + one[2]
    finally:
        model.train(was_training)
    return Evaluation(loss / count, right / count) if count else Evaluation(math.nan, math.nan)


def _one(model: Any, example: Example) -> tuple[float, int, int]:
    ids = torch.tensor([example.input_ids], device=model.device)
    targets = torch.tensor(example.labels[1:], device=model.device)
    learnt = targets != IGNORED
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1][learnt].float()
    targets = targets[learnt]
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    right = (logits.argmax(-1) == targets).sum()
    return float(loss), int(right), int(targets.numel())
