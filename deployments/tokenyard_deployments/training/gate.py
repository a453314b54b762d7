"""The static part of the gate: what an adapter must be before any replica sees it. Pure checks of files and figures."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from tokenyard.core.adapters import AdapterNotAllowed, AdapterRules
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS

_WEIGHT = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_MAX_HEADER_BYTES = 100 * 1024 * 1024


def check_adapter(folder: Path, base: Mapping[str, tuple[int, ...]], rules: AdapterRules) -> None:
    """Check the adapter in `folder` against the shapes of its base model (see `base_shapes`).

    Raises:
        AdapterNotAllowed: it is damaged, of a foreign kind, does not fit the base, or does nothing.
    """
    _check_files(folder)
    rank = _check_config(folder / ADAPTER_CONFIG, rules)
    try:
        with safe_open(str(folder / ADAPTER_WEIGHTS), framework="pt") as weights:
            tensors = {name: weights.get_tensor(name) for name in weights.keys()}
    except (SafetensorError, OSError):
        raise AdapterNotAllowed("adapter_damaged", f"{ADAPTER_WEIGHTS} is not a whole safetensors file.") from None
    _check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, base, rules, rank)
    _check_values(tensors)


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


def base_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a base model's weights from its safetensors files, or raise OSError or ValueError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            if size > _MAX_HEADER_BYTES:
                raise ValueError(f"{file.name} is not a safetensors file")
            header = json.loads(opened.read(size))
        shapes |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    if not shapes:
        raise ValueError("the base model has no safetensors files")
    return shapes


def _check_files(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()}
    if names != {ADAPTER_WEIGHTS, ADAPTER_CONFIG}:
        raise AdapterNotAllowed(
            "adapter_damaged", f"An adapter is {ADAPTER_WEIGHTS} and {ADAPTER_CONFIG}, nothing else."
        )


def _check_config(file: Path, rules: AdapterRules) -> int:
    try:
        return rules.check(msgspec.json.decode(file.read_bytes(), type=dict[str, object]))
    except msgspec.MsgspecError:
        raise AdapterNotAllowed("adapter_unsupported", f"{ADAPTER_CONFIG} does not describe a LoRA adapter.") from None


def _check_shapes(
    shapes: Mapping[str, tuple[int, ...]], base: Mapping[str, tuple[int, ...]], rules: AdapterRules, rank: int
) -> None:
    sides: dict[str, set[str]] = {}
    for name, shape in shapes.items():
        match = _WEIGHT.fullmatch(name)
        module = match["module"] if match else ""
        if match is None or module.rpartition(".")[2] not in rules.target_modules:
            raise AdapterNotAllowed("module_not_allowed", "The adapter has weights of layers that may not be changed.")
        layer = base.get(f"{module}.weight")
        if layer is None or len(layer) != 2:
            raise AdapterNotAllowed("shape_mismatch", "The adapter has weights of a layer that the base model lacks.")
        expected = (rank, layer[1]) if match["side"] == "A" else (layer[0], rank)
        if shape != expected:
            message = f"A weight has the shape {list(shape)}; the base model needs {list(expected)}."
            raise AdapterNotAllowed("shape_mismatch", message)
        sides.setdefault(module, set()).add(match["side"])
    if not sides or any(found != {"A", "B"} for found in sides.values()):
        raise AdapterNotAllowed("adapter_damaged", "The adapter lacks weights.")


def _check_values(tensors: Mapping[str, torch.Tensor]) -> None:
    for tensor in tensors.values():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise AdapterNotAllowed("not_finite", "The adapter holds values that are not numbers.")
    moved = [float(tensor.abs().max()) for name, tensor in tensors.items() if name.endswith(".lora_B.weight")]
    if math.isclose(max(moved), 0.0):
        raise AdapterNotAllowed("all_zero", "The adapter changes nothing: all its weights are zero.")
