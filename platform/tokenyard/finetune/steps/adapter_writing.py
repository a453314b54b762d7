"""Writes the weights of an adapter into a job's folder as training leaves one there: checked, and the config made anew.

Nothing of where they come from gets there but the values of the weights.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import msgspec

from tokenyard.core.adapters import AdapterRules, WeightsCheck
from tokenyard.core.models import BaseModel
from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MANIFEST_FILE,
    AdapterManifest,
    LoraSettings,
    adapter_digest,
)
from tokenyard.finetune.methods.adapter import check_weights
from tokenyard.finetune.ports import TrainableModels
from tokenyard.finetune.steps.going_live import hashed
from tokenyard.storage.blobs import BlobStore


class AdapterWriting:
    """Holds weights against the rules and the base model's own shapes, where these are on this machine."""

    def __init__(self, blobs: BlobStore, models: TrainableModels) -> None:
        self._blobs = blobs
        self._models = models

    async def write(
        self, weights: AsyncIterator[bytes], folder: str, base: BaseModel, lora: LoraSettings
    ) -> AdapterManifest:
        """Write the adapter, manifest last; raises `AdapterNotAllowed` where it breaks a rule."""
        shapes = await asyncio.to_thread(self._models.shapes, base.id)
        rules = AdapterRules(self._models.rules(base.id).max_rank, lora.target_modules)
        check = WeightsCheck(rules, base=shapes, rank=lora.rank)
        digest, config = hashlib.sha256(), _config(base.id, lora)
        await self._blobs.write_stream(f"{folder}/{ADAPTER_WEIGHTS}", hashed(check_weights(check, weights), digest))
        await self._blobs.write(f"{folder}/{ADAPTER_CONFIG}", config)
        files = {ADAPTER_WEIGHTS: digest.hexdigest(), ADAPTER_CONFIG: hashlib.sha256(config).hexdigest()}
        manifest = AdapterManifest(
            files=files,
            digest=adapter_digest(files),
            base_model=base.id,
            rank=lora.rank,
            target_modules=lora.target_modules,
            base_content_hash=base.content_hash,
        )
        await self._blobs.write(f"{folder}/{MANIFEST_FILE}", msgspec.json.encode(manifest))
        return manifest


def _config(base_model: str, lora: LoraSettings) -> bytes:
    """Write the `adapter_config.json` that vLLM reads."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": lora.target_modules,
        "use_rslora": lora.use_rslora,
        "bias": "none",
        "inference_mode": True,
    }
    return msgspec.json.encode(config)
