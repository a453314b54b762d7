"""How clearly a model prefers the better answers of held-out rows, against the model that it was."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import torch

from tokenyard_deployments.training.preferences import Pair

LogProbs = Sequence[tuple[float, float]]
"""The log-probability of each row's preferred answer and of its other one."""


class PreferenceEvaluation(msgspec.Struct, frozen=True):
    """Means over rows. A reward is beta x what the log-probability of an answer rose by since the reference.

    `reward_accuracy` is the part of the rows whose preferred answer has the higher reward, `reward_margin` by how much.
    """

    loss: float
    reward_accuracy: float
    reward_margin: float


def evaluate_preferences(
    model: Any, *, pairs: Sequence[Pair], reference: LogProbs, beta: float
) -> PreferenceEvaluation:
    """Measure `model` against `reference`, which is `answer_log_probs` of the model that it was."""
    margins = [
        beta * ((chosen - was_chosen) - (rejected - was_rejected))
        for (chosen, rejected), (was_chosen, was_rejected) in zip(
            answer_log_probs(model, pairs), reference, strict=True
        )
    ]
    count = len(margins)
    return PreferenceEvaluation(
        loss=math.fsum(_loss(margin) for margin in margins) / count,
        reward_accuracy=sum(margin > 0 for margin in margins) / count,
        reward_margin=math.fsum(margins) / count,
    )


def answer_log_probs(model: Any, pairs: Sequence[Pair]) -> LogProbs:
    """Return the log-probabilities of both answers of every row; the model's mode is kept."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return [_log_probs(model, pair) for pair in pairs]
    finally:
        model.train(was_training)


def _loss(margin: float) -> float:
    """Return `-log(sigmoid(margin))` without overflow."""
    return math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0) if math.isfinite(margin) else math.nan


def _log_probs(model: Any, pair: Pair) -> tuple[float, float]:
    return _log_prob(model, pair.prompt_ids, pair.chosen_ids), _log_prob(model, pair.prompt_ids, pair.rejected_ids)


def _log_prob(model: Any, prompt: list[int], answer: list[int]) -> float:
    ids = torch.tensor([prompt + answer], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    targets = torch.tensor(answer, device=model.device)
    return -float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
