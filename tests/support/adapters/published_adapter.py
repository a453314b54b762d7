"""Changes the weights of a published adapter, and its manifest with them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.training import ADAPTER_WEIGHTS, MANIFEST_FILE, AdapterManifest, adapter_digest


def rewrite_weights(
    blobs: Path, adapter: AdapterRef, change: Callable[[str, torch.Tensor], torch.Tensor]
) -> AdapterRef:
    folder = blobs / adapter.path
    weights = folder / ADAPTER_WEIGHTS
    save_file({name: change(name, tensor) for name, tensor in load_file(weights).items()}, weights)
    manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=AdapterManifest)
    files = {**manifest.files, weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()}
    changed = msgspec.structs.replace(manifest, files=files, digest=adapter_digest(files))
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(changed))
    return msgspec.structs.replace(adapter, digest=changed.digest)
