"""Publishes an adapter as the worker does, whatever its files hold."""

import hashlib
import json

import msgspec

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST_FILE, AdapterManifest, adapter_digest
from tokenyard.storage.blobs import BlobStore

BASE_CONTENT = "b" * 64
CONFIG = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "bias": "none"}


async def publish_files(blobs: BlobStore, identity: str, weights: bytes) -> AdapterRef:
    content = {ADAPTER_WEIGHTS: weights, ADAPTER_CONFIG: json.dumps(CONFIG).encode()}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    manifest = AdapterManifest(
        files=hashes,
        digest=adapter_digest(hashes),
        base_model="tiny",
        rank=8,
        target_modules=("q_proj",),
        base_content_hash=BASE_CONTENT,
    )
    path = f"adapters/org_1/{identity}"
    for name, data in (*content.items(), (MANIFEST_FILE, msgspec.json.encode(manifest))):
        await blobs.write(f"{path}/{name}", data)
    return AdapterRef(AdapterId(identity), f"ft:tiny:org:x:{identity}", path, manifest.digest)
