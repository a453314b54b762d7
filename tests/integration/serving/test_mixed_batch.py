"""On the real engine every row of a mixed batch equals the same row run alone: no tenant gets another's adapter."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.adapters.random_adapters import MODULES, write_random_adapter
from tokenyard.core.adapters import LINEAR_LAYERS

pytestmark = pytest.mark.timeout(900)

SCRIPT = Path(__file__).with_name("mixed_batch.py")
ENGINE_TIMEOUT_S = 400
TOLERANCE = 0.01  # nats; float32 in batches of different shapes differs by far less


@pytest.fixture(scope="module")
def adapters(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the folders of three, which change other layers each."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, modules in enumerate((MODULES, LINEAR_LAYERS, ("o_proj", "down_proj")), 1):
        write_random_adapter(base_model, root / str(seed), seed, modules=modules)
    return [str(root / str(seed)) for seed in (1, 2, 3)]


def run_engine(base: Path, adapters: list[str], plugins: str | None) -> dict[str, Any]:
    environment = {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "2"}
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # a second process would import everything once more
    environment.pop("VLLM_PLUGINS", None)
    if plugins is not None:
        environment["VLLM_PLUGINS"] = plugins
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(base), *adapters],
        env=environment,
        capture_output=True,
        text=True,
        timeout=ENGINE_TIMEOUT_S,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
    result: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return result


def mixed_up_rows(result: dict[str, Any]) -> list[int]:
    """Return which kinds of row (0 is the base, then the adapters) differ in the mixed batch from alone."""
    wrong = []
    for kind, mixed in zip(result["order"], result["mixed"], strict=True):
        alone = result["alone"][kind]
        near = all(
            abs(one - other) < TOLERANCE for one, other in zip(alone["logprobs"], mixed["logprobs"], strict=True)
        )
        if alone["tokens"] != mixed["tokens"] or not near:
            wrong.append(kind)
    return wrong


def test_every_row_of_a_mixed_batch_equals_the_row_alone(base_model: Path, adapters: list[str]) -> None:
    result = run_engine(base_model, adapters, plugins=None)
    answers = [tuple(answer["tokens"]) for answer in result["alone"]]
    assert len(set(answers)) == len(answers), "base and adapters all answer differently, or this shows nothing"
    assert mixed_up_rows(result) == []


@pytest.mark.long
def test_without_the_plugin_the_same_check_fails(base_model: Path, adapters: list[str]) -> None:
    """The check above sees the fault that it is there for: rows of the base get an adapter."""
    assert 0 in mixed_up_rows(run_engine(base_model, adapters, plugins="none"))
