"""The static part of the gate: what an adapter must be before any replica sees it. Pure checks of files and figures."""

from pathlib import Path

from tokenyard.core.adapters import AdapterNotAllowed, AdapterRules, BaseShapes, WeightsCheck
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_files

_CHUNK_BYTES = 1 << 20


def check_adapter(folder: Path, base: BaseShapes, rules: AdapterRules) -> None:
    """Check the adapter in `folder` against the shapes of its base model (see `base_shapes`).

    Raises:
        AdapterNotAllowed: it is damaged, of a foreign kind, does not fit the base, or does nothing.
    """
    check_adapter_files([file.name for file in folder.iterdir()])
    check = WeightsCheck(rules, base=base, rank=rules.read((folder / ADAPTER_CONFIG).read_bytes()))
    with (folder / ADAPTER_WEIGHTS).open("rb") as weights:
        while chunk := weights.read(_CHUNK_BYTES):
            check.feed(chunk)
    check.finish()


def check_losses(valid_loss: float | None, base_valid_loss: float | None) -> None:
    """Raise `AdapterNotAllowed` where an adapter predicts held-out rows, if there are any, no better than the base."""
    if valid_loss is None or base_valid_loss is None:
        return
    if not valid_loss < base_valid_loss:  # also refuses NaN
        message = (
            f"On the validation file the model is no better than its base: loss {valid_loss:.4f} against "
            f"{base_valid_loss:.4f}. Check that the two files are of one kind, or train with other hyperparameters."
        )
        raise AdapterNotAllowed("no_improvement", message)
