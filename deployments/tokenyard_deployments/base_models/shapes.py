"""The shapes of a base model's weights, which its adapters must fit."""

from pathlib import Path

from tokenyard.core.adapters import BaseShapes, shapes_of


def base_shapes(folder: Path) -> BaseShapes:
    """Read the shapes from a base model's safetensors files, or raise OSError or ValueError."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            shapes |= shapes_of(opened)
    if not shapes:
        raise ValueError("the base model has no safetensors files")
    return shapes
