"""Whether a folder is a complete base model, and the one that a description pins."""

import json
from pathlib import Path
from typing import Any

from tokenyard.core.adapters import stated_length
from tokenyard_deployments.base_models.content import content_hash


class BrokenModel(Exception):
    """A folder that is not a complete base model, or not the right one; the message says why."""


def check_model(folder: Path) -> None:
    """Raise `BrokenModel` where `folder` lacks config, weights or tokenizer, or needs code of its own to run."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        raise BrokenModel(f"{folder} has no config.json") from None
    except ValueError as error:
        raise BrokenModel(f"{folder / 'config.json'} is not JSON: {error}") from error
    if "auto_map" in config:
        raise BrokenModel("the model needs code of its own to run; Tokenyard runs no foreign code")
    weights = sorted(folder.rglob("*.safetensors"))
    if not any(file.parent == folder for file in weights):
        raise BrokenModel(f"{folder} has no *.safetensors weights (pickled weights are not taken)")
    for file in weights:
        _check_whole(file)
    if not (folder / "tokenizer.json").is_file():
        raise BrokenModel(f"{folder} has no tokenizer.json")


def check_content(folder: Path, pinned: str | None) -> None:
    """Raise `BrokenModel` where `folder` holds other weights than a description pins."""
    if pinned is not None and (found := content_hash(folder)) != pinned:
        raise BrokenModel(f"{folder} is not the pinned model: its content hash is {found}, not {pinned}")


def _check_whole(file: Path) -> None:
    """Raise `BrokenModel` where `file` is not as long as its own header says."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            whole = stated_length(opened)
    except ValueError as error:
        raise BrokenModel(f"{file} is damaged: it is no safetensors file") from error
    if whole != size:
        raise BrokenModel(f"{file} is not whole: it has {size} bytes, and should have {whole}")
