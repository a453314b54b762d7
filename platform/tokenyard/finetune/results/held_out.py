"""What training measured on the validation file, of the base model and of the tuned one, and which is better."""

import math
from collections.abc import Mapping

import msgspec

_TUNED, _BASE = "valid_", "base_valid_"
_HIGHEST_LOGARITHM = 700.0  # of which there is still a power of e


class HeldOut(msgspec.Struct, frozen=True):
    """Figures by name: `loss`, and of supervised fine-tuning `mean_token_accuracy` and `perplexity`.

    With DPO the base is what training began with; `tuned` also has `reward_accuracy` and `reward_margin`.
    """

    base: dict[str, float]
    tuned: dict[str, float]

    @property
    def is_better(self) -> bool:
        """Whether the tuned model predicts the file better than the base does."""
        return self.tuned["loss"] < self.base["loss"]

    def __str__(self) -> str:
        return f"loss {self.tuned['loss']:.4f} against {self.base['loss']:.4f}"


def held_out(metrics: Mapping[str, float]) -> HeldOut | None:
    """Return what the metrics of a training's result say; None where there was no validation file."""
    tuned, base = (_figures(metrics, prefix) for prefix in (_TUNED, _BASE))
    return HeldOut(base, tuned) if "loss" in tuned and "loss" in base else None


def _figures(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    found = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    if "mean_token_accuracy" in found and found.get("loss", math.inf) < _HIGHEST_LOGARITHM:
        found["perplexity"] = math.exp(found["loss"])
    return found
