"""Drafts the description of a base model that came without one, from what its own files say."""

import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec

from tokenyard.core.model_files.accelerators import AcceleratorSpec
from tokenyard.core.model_files.sources import ModelSource
from tokenyard.core.models import LoraSpec, ModelSpec, ModelTask

_DEFAULT_CONTEXT = 4096
_MAX_CONTEXT = 32_768
_PROBE = "x"
_OF_SENTENCE_TRANSFORMERS = "modules.json"
_TOOL = {"type": "function", "function": {"name": _PROBE, "description": _PROBE, "parameters": {}}}


def draft_spec(folder: Path, source: ModelSource, content_hash: str) -> ModelSpec:
    """Return a description that serves the model in `folder`; the operator may then tune the file.

    `source` is pinned, and so is what came from it: by `content_hash`.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    context = min(int(config.get("max_position_embeddings", _DEFAULT_CONTEXT)), _MAX_CONTEXT)
    once, per_message = _template_tokens(folder)
    spec = ModelSpec(
        id=re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-._") or "model",
        source=source,
        content_hash=content_hash,
        created=int(time.time()),
        context_length=context,
        default_max_tokens=min(1024, context // 4),
        template_tokens=once,
        template_tokens_per_message=per_message,
        lora=LoraSpec(),
        accelerators={
            "cpu": AcceleratorSpec(
                bundle_per_worker={"CPU": 0.5},
                engine={
                    "max_num_seqs": 16,
                    "max_num_batched_tokens": 512,
                    "block_size": 32,
                    "kv_cache_memory_bytes": 2 << 30,
                    "enforce_eager": True,
                },
                env={"VLLM_CPU_OMP_THREADS_BIND": "nobind"},
            ),
            "cuda": AcceleratorSpec(
                bundle_per_worker={"CPU": 1, "GPU": 1},
                engine={"dtype": "bfloat16", "max_num_seqs": 256, "gpu_memory_utilization": 0.85},
            ),
        },
    )
    return _embedding(spec, folder, config) if (folder / _OF_SENTENCE_TRANSFORMERS).is_file() else spec


def _embedding(spec: ModelSpec, folder: Path, config: dict[str, Any]) -> ModelSpec:
    settings = folder / "sentence_bert_config.json"
    longest = json.loads(settings.read_bytes()).get("max_seq_length") if settings.is_file() else None
    context = min(int(longest or spec.context_length), spec.context_length)
    return msgspec.structs.replace(
        spec,
        task=ModelTask.EMBEDDING,
        dimensions=(int(config["hidden_size"]),),
        context_length=context,
        default_max_tokens=0,
        template_tokens=_added_tokens(folder),
        template_tokens_per_message=0,
        lora=None,
        accelerators={kind: _read_whole(one, context) for kind, one in spec.accelerators.items()},
    )


def _read_whole(accelerator: AcceleratorSpec, context: int) -> AcceleratorSpec:
    """Return it with room in one step for a whole text, which most embedding models cannot read in pieces."""
    engine = {**accelerator.engine, "dtype": "float32", "max_num_batched_tokens": max(context, 512)}
    return msgspec.structs.replace(accelerator, engine=engine)


def _added_tokens(folder: Path) -> int:
    """Return how many tokens the tokenizer puts around a text."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    return int(AutoTokenizer.from_pretrained(str(folder)).num_special_tokens_to_add())


def _template_tokens(folder: Path) -> tuple[int, int]:
    """Measure what the chat template adds once, also where it offers tools, and to each message; with room to spare."""
    # Heavy: needed only for a model that comes without a description.
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    if not tokenizer.chat_template:
        return 8, 8

    def length(messages: int, *, tools: bool = False) -> int:
        roles = ("user", "assistant")
        chat = [{"role": roles[index % 2], "content": _PROBE} for index in range(messages)]
        offered = [_TOOL] if tools else None
        return len(tokenizer.apply_chat_template(chat, tools=offered, add_generation_prompt=True, return_dict=False))

    one, three = length(1), length(3)
    per_message = -(-(three - one) // 2)
    once = max(one, length(1, tools=True)) - per_message
    return max(8, once) + 8, per_message + 4
