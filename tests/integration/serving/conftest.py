"""The real base model, fetched once, and random LoRA adapters that fit it."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import save_file

from tokenyard.core.ids import AdapterId
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST_FILE, AdapterManifest, adapter_digest
from tokenyard.core.usage import AdapterRef
from tokenyard_deployments.models import pull, shipped_specs, source_of

MODEL = "smollm2-135m-instruct"
ROOT = Path(__file__).parents[3]
RANK = 8

WriteAdapter = Callable[[Path, int], None]
PublishAdapter = Callable[[Path, str, int], AdapterRef]


@pytest.fixture(scope="session")
def base_model() -> Path:
    """A local folder with the default base model (`TOKENYARD_TEST_MODEL`, or fetched into `build/`)."""
    folder = Path(os.environ.get("TOKENYARD_TEST_MODEL") or ROOT / "build" / "models" / MODEL)
    source, _ = source_of(MODEL, shipped_specs())
    pull(source, folder, lambda _step: None)
    return folder


@pytest.fixture(scope="session")
def write_adapter(base_model: Path) -> WriteAdapter:
    """Write a random adapter on the query and value projections, in the format of PEFT, to a folder."""
    config = json.loads((base_model / "config.json").read_bytes())
    hidden = config["hidden_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    widths = {"q_proj": head * config["num_attention_heads"], "v_proj": head * config["num_key_value_heads"]}

    def write(folder: Path, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for layer in range(config["num_hidden_layers"]):
            for module, width in widths.items():
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                weights[f"{name}.lora_A.weight"] = torch.randn(RANK, hidden, generator=generator) / hidden**0.5
                weights[f"{name}.lora_B.weight"] = torch.randn(width, RANK, generator=generator) / RANK**0.5
        folder.mkdir(parents=True)
        save_file(weights, folder / ADAPTER_WEIGHTS)
        settings = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(base_model),
            "r": RANK,
            "lora_alpha": RANK,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted(widths),
        }
        (folder / ADAPTER_CONFIG).write_text(json.dumps(settings))

    return write


@pytest.fixture(scope="session")
def publish_adapter(write_adapter: WriteAdapter) -> PublishAdapter:
    """Write an adapter and its manifest under a blob root; return how a replica is asked for it."""

    def publish(blobs: Path, name: str, seed: int) -> AdapterRef:
        identity = AdapterId(f"{seed:016x}")
        path = f"adapters/org_test/{identity}"
        folder = blobs / path
        write_adapter(folder, seed)
        files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        manifest = AdapterManifest(
            files=files,
            digest=adapter_digest(files),
            base_model=MODEL,
            rank=RANK,
            target_modules=("q_proj", "v_proj"),
        )
        (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))
        return AdapterRef(identity, name, path, manifest.digest)

    return publish
