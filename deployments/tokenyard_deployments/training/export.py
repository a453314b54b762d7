"""Puts the trained adapter through the gate and into the attempt's folder: manifest last."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import msgspec

from tokenyard.core.adapters import AdapterRules
from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_FOLDER,
    ADAPTER_WEIGHTS,
    MANIFEST_FILE,
    AdapterManifest,
    TrainingSpec,
    adapter_digest,
)
from tokenyard_deployments.base_models.content import content_hash
from tokenyard_deployments.base_models.shapes import base_shapes
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.gate import check_adapter


def export_adapter(spec: TrainingSpec, folder: AttemptFolder, source: AttemptFolder, path: str) -> str:
    """Make the adapter at `path` of `source` the result of `folder`; return its digest.

    Raises:
        AdapterNotAllowed: it does not keep the rules.
    """
    with tempfile.TemporaryDirectory(prefix="tokenyard-adapter-") as scratch:
        whole, adapter = Path(scratch) / "checkpoint", Path(scratch) / "adapter"
        source.download(path, whole)
        adapter.mkdir()
        shutil.copy(whole / ADAPTER_WEIGHTS, adapter)
        _write_config(whole / ADAPTER_CONFIG, adapter / ADAPTER_CONFIG, spec.base_model)
        rules = AdapterRules(spec.max_lora_rank, spec.lora.target_modules)
        check_adapter(adapter, base_shapes(Path(spec.base_model_path)), rules)
        files = {file.name: _sha256(file) for file in adapter.iterdir()}
        for name in sorted(files):
            folder.upload(adapter / name, f"{ADAPTER_FOLDER}/{name}")
    manifest = AdapterManifest(
        files=files,
        digest=adapter_digest(files),
        base_model=spec.base_model,
        rank=spec.lora.rank,
        target_modules=spec.lora.target_modules,
        base_content_hash=content_hash(Path(spec.base_model_path)),
    )
    folder.write(f"{ADAPTER_FOLDER}/{MANIFEST_FILE}", msgspec.json.encode(manifest))
    return manifest.digest


def _write_config(source: Path, target: Path, base_model: str) -> None:
    """Copy PEFT's config with the base model's name in the place of the machine's path, and keys in a fixed order."""
    config = json.loads(source.read_bytes())
    config["base_model_name_or_path"] = base_model
    config["target_modules"] = sorted(config["target_modules"])
    target.write_text(json.dumps(config, indent=2, sort_keys=True))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
