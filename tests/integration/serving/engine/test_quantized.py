"""Quantized models on the CPU, as their files describe them, with adapters over them: really run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("vllm")

import torch
from safetensors.torch import load_file, save_file

from support.adapters.random_adapters import write_random_adapter
from tokenyard.core.model_files.reading import write_model_spec
from tokenyard.core.models import ModelSpec
from tokenyard_deployments.base_models.content import content_hash

METHOD = "compressed-tensors"
# vLLM's product with weights of 4 bits is compiled for CPUs with AVX-512 alone.
BITS = (8, 4) if torch.backends.cpu.get_cpu_capability() == "AVX512" else (8,)
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
_GROUP = 32
_PER_WORD = 8
_INTEGER = {"type": "int", "symmetric": True}
RUN = """
import json, os, sys
from pathlib import Path
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard_deployments.serving.app import llm_config

ASK = [{"role": "user", "content": "What is the capital of France?"}]

def run(file, folder, adapter):
    spec = read_model_spec(Path(file).read_bytes())
    overrides = {"kv_cache_memory_bytes": 64 << 20, "max_num_seqs": 2}
    config = llm_config(spec, path=folder, kind="cpu", overrides=overrides)
    os.environ.update(config["runtime_env"]["env_vars"])
    from ray.serve.llm import LLMConfig
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest
    arguments = LLMConfig(**config).get_engine_config().get_initialization_kwargs()
    del arguments["enable_log_requests"]
    engine = LLM(**arguments)
    sampling = SamplingParams(temperature=0, max_tokens=8, logprobs=0)
    tuned = LoRARequest("tuned", 1, adapter)

    def answers(*loras):
        found = engine.chat([ASK] * len(loras), sampling, use_tqdm=False, lora_request=list(loras))
        outputs = [one.outputs[0] for one in found]
        return [[one.text, [next(iter(step.values())).logprob for step in one.logprobs]] for one in outputs]

    told = {"base": answers(None)[0], "tuned": answers(tuned)[0], "both": answers(None, tuned)}
    told["quantization"] = engine.llm_engine.model_config.quantization
    engine.llm_engine.engine_core.shutdown()
    print("RESULT " + json.dumps(told), flush=True)

if __name__ == "__main__":
    for at in range(1, len(sys.argv), 3):
        run(*sys.argv[at : at + 3])
"""


def write_quantized(base: Path, into: Path, bits: int) -> Path:
    """Write a copy of a model whose linear layers have weights of so many bits, in a format of `compressed-tensors`.

    Of 8, activations are rounded to 8 as well, token by token, while it runs; of 4, they stay what they are.
    """
    into.mkdir()
    for name in _FILES:
        (into / name).write_bytes((base / name).read_bytes())
    config = json.loads((base / "config.json").read_bytes())
    (into / "config.json").write_text(json.dumps({**config, "quantization_config": _config(bits)}))
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        layer = name.rpartition(".")[0]
        if not layer.endswith(_LINEAR):
            tensors[name] = tensor
            continue
        rounded = _eight_bits(tensor) if bits == 8 else _four_bits(tensor)
        tensors.update({f"{layer}.{part}": value for part, value in rounded.items()})
    save_file(tensors, into / "model.safetensors")
    return into


def _config(bits: int) -> dict[str, Any]:
    weights = {**_INTEGER, "num_bits": bits, "dynamic": False}
    if bits == 8:
        layers: dict[str, Any] = {
            "weights": {**weights, "strategy": "channel"},
            "input_activations": {**_INTEGER, "num_bits": 8, "strategy": "token", "dynamic": True},
        }
    else:
        layers = {"weights": {**weights, "strategy": "group", "group_size": _GROUP}}
    return {
        "quant_method": METHOD,
        "format": "int-quantized" if bits == 8 else "pack-quantized",
        "ignore": ["lm_head"],
        "config_groups": {"all": {"targets": ["Linear"], **layers}},
    }


def _eight_bits(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """With one scale for each output."""
    scale = weight.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / 127
    return {"weight": (weight.float() / scale).round().clamp(-127, 127).to(torch.int8), "weight_scale": scale}


def _four_bits(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """With one scale for each group of inputs, and eight weights in a word, the first in its lowest bits."""
    outputs, inputs = weight.shape
    groups = weight.float().view(outputs, inputs // _GROUP, _GROUP)
    scale = (groups.abs().amax(dim=-1, keepdim=True).clamp(min=1e-8) / 7.5).to(torch.bfloat16)
    rounded = ((groups / scale.float()).round().clamp(-8, 7) + 8).to(torch.int32)
    words = torch.zeros(outputs, inputs // _PER_WORD, dtype=torch.int32)
    for place, values in enumerate(rounded.view(outputs, -1, _PER_WORD).unbind(dim=-1)):
        words |= values << (4 * place)
    return {
        "weight_packed": words,
        "weight_scale": scale.squeeze(-1).contiguous(),
        "weight_shape": torch.tensor([outputs, inputs]),
    }


def _arguments(base: Path, spec: ModelSpec, into: Path, bits: int) -> list[str]:
    folder, adapter, file = (
        write_quantized(base, into / f"{bits}", bits),
        into / f"{bits}-adapter",
        into / f"{bits}.yaml",
    )
    assert content_hash(folder) != content_hash(base), "it is another model"
    write_random_adapter(base, adapter, 7, strength=2.0)
    cpu = msgspec.structs.replace(spec.accelerator("cpu"), quantization=METHOD)
    file.write_bytes(
        write_model_spec(msgspec.structs.replace(spec, accelerators={"cpu": cpu}, content_hash=content_hash(folder)))
    )
    return [str(file), str(folder), str(adapter)]


@pytest.mark.long
def test_they_answer_with_and_without_an_adapter(base_model: Path, small_spec: ModelSpec, tmp_path: Path) -> None:
    """One process runs one after the other: most of its time is to load vLLM."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    arguments = [one for bits in BITS for one in _arguments(base_model, small_spec, tmp_path, bits)]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    found = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(found) == len(BITS), done.stdout[-3000:] + done.stderr[-3000:]
    for told in map(json.loads, found):
        _check(told)


def _check(told: dict[str, Any]) -> None:
    """What else is in a batch changes how sums are rounded, and with 8 bits that changes how activations are."""
    assert told["quantization"] == METHOD
    rows = [told["base"], told["tuned"]]
    for alone, other, together in zip(rows, reversed(rows), told["both"], strict=True):
        assert abs(together[1][0] - alone[1][0]) < abs(together[1][0] - other[1][0])
    assert ["Paris" in text for text, _ in (*rows, *told["both"])] == [True, False, True, False]
