"""What Ray's and vLLM's own config classes say of a model's file: also for GPUs, which are not there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenyard.settings import Settings
from tokenyard.stack.installation import StackFailed
from tokenyard.stack.model_check import check_model

pytest.importorskip("vllm")

SHIPPED: dict[str, Any] = yaml.safe_load((Settings().models_dir / "smollm2-135m-instruct.yaml").read_text())
ALL_OF_THEM = """
import sys
from tokenyard_deployments.serving.model_check import main
for file in sys.argv[2:]:
    main([file, "cuda", "--folder", sys.argv[1]])
"""
ENGINE = SHIPPED["accelerators"]["cuda"]["engine"]
ACCEPTED: dict[str, dict[str, Any]] = {
    "as it ships": {},
    "tensor and pipeline parallel": {"tensor_parallel_size": 3, "pipeline_parallel_size": 2},
    "quantized as it is loaded": {"quantization": "fp8"},
    "streamed from the disk to the GPU": {
        "engine": {**ENGINE, "load_format": "runai_streamer", "model_loader_extra_config": {"concurrency": 16}}
    },
    "a part of a GPU": {"bundle_per_worker": {"CPU": 1, "GPU": 0.5}},
}
"""Of the accelerator in the shipped file, which has 9 attention heads."""
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "heads that do not divide": (
        {"tensor_parallel_size": 2},
        "vLLM does not take it: Value error, Total number of attention heads (9) must be divisible by tensor parallel",
    ),
    "an unknown argument": (
        {"engine": {**ENGINE, "max_seqs": 3}},
        "Ray's LLM engine does not take it: Unknown engine argument: max_seqs",
    ),
    "an unknown type": ({"engine": {**ENGINE, "dtype": "bfloat17"}}, "vLLM does not take it: dtype"),
    "more than the memory": ({"engine": {**ENGINE, "gpu_memory_utilization": 1.5}}, "gpu_memory_utilization: Input"),
    "steps too short": (
        {"engine": {**ENGINE, "max_num_batched_tokens": 16}},
        "must be greater than or equal to max_num",
    ),
    "an unknown quantization": ({"quantization": "int1"}, "Unknown quantization method: int1"),
    "weights that are not quantized so": ({"quantization": "awq"}, "Cannot find the config file for awq"),
    "an unknown way to load": (
        {"engine": {**ENGINE, "load_format": "streamed"}},
        "vLLM does not take it: Load format `streamed` is not supported",
    ),
    "a setting that the loader does not have": (
        {"engine": {**ENGINE, "load_format": "runai_streamer", "model_loader_extra_config": {"threads": 16}}},
        "Unexpected extra config keys for runai_streamer: {'threads'}",
    ),
    "a batch of adapters vLLM cannot run": ({"engine": {**ENGINE, "lora_dtype": "int1"}}, "lora_dtype"),
}


def _file(folder: Path, name: str, accelerator: dict[str, Any], **stated: Any) -> Path:
    stated["accelerators"] = {"cuda": {**SHIPPED["accelerators"]["cuda"], **accelerator}}
    file = folder / f"{name.replace(' ', '-')}.yaml"
    file.write_text(yaml.safe_dump({**SHIPPED, **stated}))
    return file


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> dict[str, dict[str, Any]]:
    """What is said of all of them: one process looks at one after the other, as loading vLLM takes longest."""
    folder = tmp_path_factory.mktemp("files")
    files = {name: _file(folder, name, one) for name, one in ACCEPTED.items()}
    files |= {name: _file(folder, name, one) for name, (one, _) in REFUSED.items()}
    files["an unknown parser"] = _file(folder, "parser", {}, tools={"parser": "unheard"})
    command = [sys.executable, "-c", ALL_OF_THEM, str(base_model), *map(str, files.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == len(files), done.stderr[-2000:]
    return dict(zip(files, lines, strict=True))


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_right_for_a_gpu_is_taken_and_its_place_is_told(answers: dict[str, dict[str, Any]], name: str) -> None:
    found = answers[name].get("found")
    assert found is not None, answers[name]
    stated = {**SHIPPED["accelerators"]["cuda"], **ACCEPTED[name]}
    assert found["workers"] == stated.get("tensor_parallel_size", 1) * stated.get("pipeline_parallel_size", 1)
    assert found["bundle_per_worker"] == stated["bundle_per_worker"]
    assert (found["placement"], found["gpu"]) == ("PACK", "imagined")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_for_a_gpu_is_said_before_there_is_one(answers: dict[str, dict[str, Any]], name: str) -> None:
    assert REFUSED[name][1] in answers[name].get("error", answers[name])


def test_a_parser_that_vllm_does_not_have_is_said(answers: dict[str, dict[str, Any]]) -> None:
    assert "`tools.parser` of the model is 'unheard', which vLLM does not know" in answers["an unknown parser"]["error"]


async def test_an_operator_asks_without_the_models_files(tmp_path: Path) -> None:
    file = _file(tmp_path, "large", {"tensor_parallel_size": 8}, id="large")
    found = await check_model(file, "cuda", None, os.environ)
    assert (found.id, found.workers, found.gpu, found.files) == ("large", 8, "imagined", None)
    with pytest.raises(StackFailed, match="`accelerators` says nothing of 'cpu'"):
        await check_model(file, "cpu", None, os.environ)


async def test_an_operator_asks_for_a_cpu(tmp_path: Path, base_model: Path) -> None:
    file = tmp_path / "cpu.yaml"
    file.write_text(yaml.safe_dump(SHIPPED))
    found = await check_model(file, "cpu", base_model, os.environ)
    assert (found.workers, found.placement, found.gpu, found.files) == (1, "STRICT_PACK", "none", str(base_model))
