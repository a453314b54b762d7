"""The default base model, fetched once, and a description of it with which a replica starts soon and takes little."""

import os
from pathlib import Path

import msgspec

from tokenyard.core.model_files.accelerators import LoraRoomSpec
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import LoraSpec, ModelSpec
from tokenyard_deployments.base_models.fetch import pull, shipped_specs, source_of

MODEL = "smollm2-135m-instruct"
_ENGINE: dict[str, object] = {"kv_cache_memory_bytes": 128 << 20, "max_num_seqs": 4, "max_num_batched_tokens": 256}
_ROOT = Path(__file__).parents[3]


def pulled(model: str = MODEL, variable: str = "TOKENYARD_TEST_MODEL") -> Path:
    """Return a local folder with the model: the one that `variable` names, or one below `build/`."""
    folder = Path(os.environ.get(variable) or _ROOT / "build" / "models" / model)
    source, spec = source_of(model, shipped_specs())
    assert spec is not None
    pull(source, folder, lambda _step: None, template=spec.chat_template)
    return folder


def small_spec() -> ModelSpec:
    """Return the shipped description, with less room for everything."""
    shipped = read_model_spec((shipped_specs() / f"{MODEL}.yaml").read_bytes())
    return msgspec.structs.replace(
        shipped,
        context_length=1024,
        default_max_tokens=64,
        max_waiting=4,
        max_wait_s=15.0,
        max_silence_s=10.0,
        lora=LoraSpec(max_lora_rank=8),
        accelerators={"cpu": msgspec.structs.replace(shipped.accelerator("cpu"), lora=LoraRoomSpec(2, 3))},
    )


def small_spec_to_share() -> ModelSpec:
    """Return one that lets some clients wait, and of whose replicas each takes one CPU of a node."""
    spec = small_spec()
    accelerator = spec.accelerator("cpu")
    small = msgspec.structs.replace(
        accelerator, bundle_per_worker={"CPU": 1}, engine={**accelerator.engine, **_ENGINE}, lora=LoraRoomSpec(2, 3)
    )
    return msgspec.structs.replace(spec, max_waiting=64, max_wait_s=60.0, accelerators={"cpu": small})
