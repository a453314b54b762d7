"""Loss and accuracy of a model on held-out rows, exact over tokens whatever the batches are."""

import math
from collections.abc import Iterable
from typing import Any

import msgspec
import torch
from transformers import DynamicCache

from tokenyard_deployments.training.examples import IGNORED, Example

PART_TOKENS = 512


class Evaluation(msgspec.Struct, frozen=True):
    """Means over the learnt tokens."""

    loss: float
    mean_token_accuracy: float


def evaluate(model: Any, examples: Iterable[Example]) -> Evaluation:
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
    """Part by part: of a whole long row, the logits alone could be larger than the model."""
    ids = torch.tensor([example.input_ids], device=model.device)
    targets = torch.tensor(example.labels, device=model.device)
    cache = DynamicCache(config=model.config) if len(example.input_ids) > PART_TOKENS else None
    loss, right, count = 0.0, 0, 0
    for begin in range(0, len(example.input_ids), PART_TOKENS):
        following = targets[begin + 1 : begin + PART_TOKENS + 1]
        places = (following != IGNORED).nonzero()[:, 0]
        if cache is None and not len(places):
            continue
        part = ids[:, begin : begin + PART_TOKENS]
        # Position 0 is asked for where none is wanted, as none at all means every one to some models.
        asked = places if len(places) else places.new_zeros(1)
        logits = model(input_ids=part, past_key_values=cache, use_cache=cache is not None, logits_to_keep=asked).logits
        wanted = following[places]
        logits = logits[0, : len(places)].float()
        loss += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
        right += int((logits.argmax(-1) == wanted).sum())
        count += len(places)
    return loss, right, count
