"""Files of adapters and of their base, written without torch: so a test may write what no library would."""

import json
import random
import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from tokenyard.core.adapters import BaseShapes, shapes_of

DIMENSION = 16
LAYERS = 2
Q_PROJ = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"

Tensors = Mapping[str, tuple[tuple[int, ...], bytes]]
"""Shape and bytes of each."""


def float_bytes(count: int, seed: int = 0) -> bytes:
    values = random.Random(seed)
    return struct.pack(f"<{count}f", *(values.uniform(-1, 1) for _ in range(count)))


def safetensors(
    tensors: Tensors,
    *,
    dtype: str = "F32",
    metadata: Mapping[str, str] | None = None,
    header: Mapping[str, object] | None = None,
) -> bytes:
    """Write a file; what is in `header` replaces entries of its own."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, (shape, values) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    return framed(json.dumps(entries | dict(header or {})).encode()) + data


def framed(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def lora_tensors(*, rank: int = 4, dimension: int = DIMENSION, layers: int = LAYERS) -> dict[str, Any]:
    """Adapt the query projections of so many layers."""
    found = {}
    for layer in range(layers):
        found[Q_PROJ.format(layer, "A")] = ((rank, dimension), float_bytes(rank * dimension, layer))
        found[Q_PROJ.format(layer, "B")] = ((dimension, rank), float_bytes(rank * dimension, -1 - layer))
    return found


def adapter_weights(*, rank: int = 4, dimension: int = DIMENSION, layers: int = LAYERS) -> bytes:
    return safetensors(lora_tensors(rank=rank, dimension=dimension, layers=layers))


def base_weights(*, dimension: int = DIMENSION, layers: int = LAYERS) -> bytes:
    shape = (dimension, dimension)
    names = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(layers)]
    return safetensors({name: (shape, float_bytes(dimension * dimension)) for name in names})


def lora_settings(*, rank: int = 4, **more: Any) -> dict[str, Any]:
    """Say what PEFT says in an `adapter_config.json`."""
    plain = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    return {**plain, **more}


def lora_config(*, rank: int = 4) -> bytes:
    return json.dumps(lora_settings(rank=rank)).encode()


def read_shapes(weights: bytes) -> BaseShapes:
    return shapes_of(BytesIO(weights))
