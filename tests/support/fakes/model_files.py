"""A folder that looks like a base model: real formats, hardly any content."""

import json
import struct
from pathlib import Path

from tokenizers import Tokenizer, models


def safetensors(tensors: dict[str, bytes]) -> bytes:
    """Return a file of tensors of single bytes."""
    header, end = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


def model_files(weights: bytes = b"weights") -> dict[str, bytes]:
    """Return what a complete model has, by file name."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 256}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": Tokenizer(models.WordLevel({"x": 0, "?": 1}, unk_token="?")).to_str().encode(),
        "model.safetensors": safetensors({"a": weights, "b": b"more"}),
    }


def write_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in model_files(weights).items():
        (folder / name).write_bytes(content)
    return folder
