"""Random LoRA adapters over a real base model: each answers unlike the base and unlike the others."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors.torch import save_file

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST_FILE, AdapterManifest, adapter_digest
from tokenyard_deployments.base_models.content import content_hash

RANK = 8
MODULES = ("q_proj", "v_proj")


def write_random_adapter(
    base: Path, folder: Path, seed: int, *, strength: float = 1.0, modules: Sequence[str] = MODULES
) -> None:
    """Write one in the format of PEFT.

    The stronger it is, the less its answers have in common with those of the base and of others.
    """
    shapes = _shapes(json.loads((base / "config.json").read_bytes()))
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(shapes.layers):
        for module in modules:
            part, width_in, width = shapes.of(module)
            name = f"base_model.model.model.layers.{layer}.{part}.{module}"
            weights[f"{name}.lora_A.weight"] = torch.randn(RANK, width_in, generator=generator) / width_in**0.5
            weights[f"{name}.lora_B.weight"] = torch.randn(width, RANK, generator=generator) * strength / RANK**0.5
    folder.mkdir(parents=True)
    save_file(weights, folder / ADAPTER_WEIGHTS)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(modules),
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(settings))


def publish_random_adapter(
    base: Path, blobs: Path, name: str, seed: int, *, strength: float = 1.0, modules: Sequence[str] = MODULES
) -> AdapterRef:
    """Write one and its manifest under a blob root; return how a replica is asked for it."""
    identity = AdapterId(f"{seed:016x}")
    path = f"adapters/org_test/{identity}"
    folder = blobs / path
    write_random_adapter(base, folder, seed, strength=strength, modules=modules)
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    manifest = AdapterManifest(
        files=files,
        digest=adapter_digest(files),
        base_model=base.name,
        rank=RANK,
        target_modules=tuple(modules),
        base_content_hash=_content(base),
    )
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))
    return AdapterRef(identity, name, path, manifest.digest)


class _Shapes(NamedTuple):
    """Of a model of Llama's kind."""

    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int

    def of(self, module: str) -> tuple[str, int, int]:
        """Return in which part of a layer it is, and how wide its inputs and outputs are."""
        return {
            "q_proj": ("self_attn", self.hidden, self.queries),
            "k_proj": ("self_attn", self.hidden, self.keys),
            "v_proj": ("self_attn", self.hidden, self.keys),
            "o_proj": ("self_attn", self.queries, self.hidden),
            "gate_proj": ("mlp", self.hidden, self.inner),
            "up_proj": ("mlp", self.hidden, self.inner),
            "down_proj": ("mlp", self.inner, self.hidden),
        }[module]


def _shapes(config: dict[str, Any]) -> _Shapes:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    return _Shapes(
        config["num_hidden_layers"],
        hidden,
        config["intermediate_size"],
        head * heads,
        head * config["num_key_value_heads"],
    )


@cache
def _content(base: Path) -> str:
    return content_hash(base)
