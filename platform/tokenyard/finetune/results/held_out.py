"""What training measured on the validation file, of the base model and of the tuned one, and which is better."""

import math
from collections.abc import Mapping

import msgspec

from tokenyard.core.training import deciding_figure, merit

_TUNED, _BASE = "valid_", "base_valid_"
_HIGHEST_LOGARITHM = 700.0  # of which there is still a power of e


class HeldOut(msgspec.Struct, frozen=True):
    """Figures by name: `loss`, and of supervised fine-tuning `mean_token_accuracy` and `perplexity`.

    With DPO the base is what training began with; `tuned` also has `reward_accuracy` and `reward_margin`.
    Reinforcement fine-tuning has `reward` alone: what the grader says of each row's likeliest answer.
    """

    base: dict[str, float]
    tuned: dict[str, float]

    @property
    def is_better(self) -> bool:
        """Whether the tuned model does better on the file than the base."""
        return merit(self.tuned) > merit(self.base)

    def __str__(self) -> str:
        name = deciding_figure(self.tuned)
        return f"{name} {self.tuned[name]:.4f} against {self.base[name]:.4f}"


def held_out(metrics: Mapping[str, float]) -> HeldOut | None:
    """Return what the metrics of a training's result say; None where there was no validation file."""
    tuned, base = (_figures(metrics, prefix) for prefix in (_TUNED, _BASE))
    measured = all("loss" in figures or "reward" in figures for figures in (tuned, base))
    return HeldOut(base, tuned) if measured else None


def _figures(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    found = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    if "mean_token_accuracy" in found and found.get("loss", math.inf) < _HIGHEST_LOGARITHM:
        found["perplexity"] = math.exp(found["loss"])
    return found
