"""The model that every method trains: a frozen base and a LoRA adapter over it, new or that of a fine-tuned model."""

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed

from tokenyard.core.adapters import AdapterNotAllowed, AdapterRules
from tokenyard.core.training import ADAPTER_FOLDER, MANIFEST_FILE, AdapterManifest, TrainingSpec
from tokenyard_deployments.base_models.content import content_hash
from tokenyard_deployments.base_models.shapes import base_shapes
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.gate import check_adapter
from tokenyard_deployments.training.methods.base import load_base


def adapted_model(spec: TrainingSpec) -> Any:
    """Return the base model with the adapter that is to be trained.

    Raises:
        TrainingFailed: the base has none of the layers to train, the adapter to begin with is not of this base, or
            the machine is not one for what was set.
    """
    base = load_base(spec)
    set_seed(spec.seed)  # a new adapter starts from random weights
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        target_modules=list(spec.lora.target_modules),
        use_rslora=spec.lora.use_rslora,
        lora_dropout=spec.lora.dropout,
        bias="none",
    )
    if spec.start_url is not None:
        return _continued(spec, spec.start_url, base, lora)
    try:
        return get_peft_model(base, lora)
    except ValueError:
        raise TrainingFailed("invalid_target_modules", "The base model has none of the layers to train.") from None


def _continued(spec: TrainingSpec, start_url: str, base: Any, lora: LoraConfig) -> Any:
    with tempfile.TemporaryDirectory(prefix="tokenyard-start-") as scratch:
        folder = Path(scratch)
        AttemptFolder(start_url).download(ADAPTER_FOLDER, folder)
        manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=AdapterManifest)
        (folder / MANIFEST_FILE).unlink()
        made_for = manifest.base_content_hash
        if made_for is not None and made_for != content_hash(Path(spec.base_model_path)):
            raise TrainingFailed("base_model_changed", "The base of the model to start from has changed since.")
        try:
            rules = AdapterRules(spec.max_lora_rank, spec.lora.target_modules)
            check_adapter(folder, base_shapes(Path(spec.base_model_path)), rules)
        except AdapterNotAllowed as refused:
            raise TrainingFailed(refused.code, refused.message) from refused
        return PeftModel.from_pretrained(base, folder, config=lora, is_trainable=True)
