"""Reads and writes a model's file. What is wrong with one is said by its field; an older one, with what to change."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tokenyard.core.adapters import ENGINE_RANKS
from tokenyard.core.model_files.accelerators import accelerator_faults, autoscaling_faults
from tokenyard.core.model_files.sources import check_source
from tokenyard.core.models import InvalidModelSpec, ModelSpec, ModelTask

VERSION = 2
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OF_REPLICAS = frozenset(
    {
        *("accelerators", "autoscaling", "content_hash", "fallback", "lora", "max_silence_s", "max_surge_percent"),
        *("max_waiting", "max_waiting_tokens", "reasoning", "replicas", "runs_on", "tools", "training"),
    }
)


def read_model_spec(data: bytes) -> ModelSpec:
    """Read the YAML of one file; whatever is wrong with it raises `InvalidModelSpec`."""
    try:
        stated: dict[str, Any] = msgspec.yaml.decode(data, type=dict[str, Any])
        _check_version(stated)
        spec = msgspec.convert(stated, ModelSpec)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidModelSpec(f"not a model description: {error}") from error
    if spec.server is not None:
        senseless = sorted(_OF_REPLICAS.intersection(stated))
        if senseless:
            raise InvalidModelSpec(f"model {spec.id} is served elsewhere: `{senseless[0]}` is for a model of our own")
        spec = msgspec.structs.replace(spec, lora=None)
    if fault := next(_faults(spec), None):
        raise InvalidModelSpec(f"model {spec.id}: {fault}")
    return spec


def write_model_spec(spec: ModelSpec) -> bytes:
    data: bytes = msgspec.yaml.encode(spec)
    return data


def _check_version(stated: Mapping[str, Any]) -> None:
    version = stated.get("version", 1)
    if version == 1:
        steps = "; ".join(_since_version_1(stated))
        raise ValueError(f"it is of version 1, and {VERSION} is read. To change: {steps}")
    if version != VERSION:
        raise ValueError(f"it is of version {version!r}, and {VERSION} is read")


def _since_version_1(stated: Mapping[str, Any]) -> Iterator[str]:
    yield f"state `version: {VERSION}`"
    accelerators = stated.get("accelerators")
    for kind, one in accelerators.items() if isinstance(accelerators, dict) else ():
        here, accelerator = f"accelerators.{kind}", one if isinstance(one, dict) else {}
        if "bundle" in accelerator:
            yield f"call `{here}.bundle` `bundle_per_worker`"
        engine = accelerator.get("engine")
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "quantization"):
            if isinstance(engine, dict) and name in engine:
                yield f"move `{here}.engine.{name}` to `{here}.{name}`"
    lora = stated.get("lora")
    for name in ("max_loras", "max_cpu_loras"):
        if isinstance(lora, dict) and name in lora:
            yield f"move `lora.{name}` to `accelerators.<kind>.lora.{name}`"


def _faults(spec: ModelSpec) -> Iterator[str]:
    """Yield what is wrong with the values of a description, field by field."""
    if not _ID.fullmatch(spec.id):
        yield f"`id` must be 1 to 64 of a-z, 0-9, `.`, `_` and `-`: {spec.id!r}"
    try:
        check_source(spec.source, msgspec.to_builtins(spec.sampling))
    except ValueError as error:
        yield str(error)
    if spec.content_hash is not None and not _SHA256.fullmatch(spec.content_hash):
        yield f"`content_hash` must be a SHA-256 in 64 hex digits: {spec.content_hash!r}"
    yield from _chat_faults(spec) if spec.task is ModelTask.CHAT else _embedding_faults(spec)
    yield from _waiting_faults(spec)
    if spec.server is None:
        yield from _replica_faults(spec)


def _chat_faults(spec: ModelSpec) -> Iterator[str]:
    if not 0 < spec.default_max_tokens < spec.context_length:
        yield "`default_max_tokens` must be within `context_length`"
    if spec.dimensions:
        yield "`dimensions` are for embedding models"


def _embedding_faults(spec: ModelSpec) -> Iterator[str]:
    if spec.context_length < 1:
        yield "`context_length` must be at least 1"
    if not spec.dimensions or list(spec.dimensions) != sorted(set(spec.dimensions), reverse=True):
        yield "`dimensions` must name the model's own first, then shorter ones"
    if spec.lora is not None or spec.default_max_tokens or spec.tools is not None or spec.reasoning is not None:
        yield (
            "an embedding model generates nothing and takes no adapters: `lora` must be null, and `default_max_tokens`,"
            " `tools` and `reasoning` be left out"
        )


def _waiting_faults(spec: ModelSpec) -> Iterator[str]:
    if spec.template_tokens < 0 or spec.template_tokens_per_message < 0:
        yield "`template_tokens` and `template_tokens_per_message` must not be negative"
    if spec.max_waiting < 0 or spec.waiting_tokens < 0:
        yield "`max_waiting` and `max_waiting_tokens` must not be negative"
    if spec.max_silence_s <= 0:
        yield "`max_silence_s` must be over 0"
    if not 0 < spec.max_wait_s < spec.max_request_s:
        yield "`max_wait_s` must be over 0 and within `max_request_s`"


def _replica_faults(spec: ModelSpec) -> Iterator[str]:
    yield from autoscaling_faults(spec.replicas, spec.autoscaling, spec.max_surge_percent)
    if spec.lora is not None and spec.lora.max_lora_rank not in ENGINE_RANKS:
        yield f"`lora.max_lora_rank` must be one of {ENGINE_RANKS}"
    if spec.lora is not None and not spec.lora.target_modules:
        yield "`lora.target_modules` must name the layers that an adapter may change; without any, `lora` is null"
    if not spec.accelerators:
        yield "`accelerators` must say how a replica runs"
    if spec.runs_on is not None and spec.runs_on not in spec.accelerators:
        yield f"`runs_on` is {spec.runs_on!r}, of which `accelerators` says nothing"
    for kind, accelerator in spec.accelerators.items():
        yield from accelerator_faults(kind, accelerator, takes_adapters=spec.lora is not None)
