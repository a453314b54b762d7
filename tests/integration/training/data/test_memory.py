"""However large a training file is, its rows are never all in memory."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fakes.tiny_model import save_tiny_model
from support.ray_cluster.small_model import pulled

LARGE_MIB = int(os.environ.get("DATA_MEMORY_MIB", "0"))
"""With 512, what is promised is measured itself; that takes long."""
READS = Path(__file__).parents[3] / "support" / "training" / "data_memory.py"
BOUND = 2 << 30
PROMISED = 512 << 20

pytestmark = [
    pytest.mark.timeout(7200 if LARGE_MIB else 900),
    pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its memory"),
]


def rows(size: int) -> Iterator[str]:
    """Yield rows of a few hundred bytes, all different."""
    written = number = 0
    while written < size:
        words = " ".join(f"word{(number * 31 + place * place) % 9973}" for place in range(40))
        chat = [{"role": "user", "content": f"{number} {words}"}, {"role": "assistant", "content": words[:90]}]
        line = json.dumps({"messages": chat}) + "\n"
        written += len(line)
        number += 1
        yield line


def measured(base_model: Path, folder: Path, size: int) -> dict[str, Any]:
    file = folder / f"{size}.jsonl"
    with file.open("w") as opened:
        opened.writelines(rows(size))
    command = [sys.executable, str(READS), str(base_model), str(file), str(folder / f"{size}")]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(bool(LARGE_MIB), reason="measured whole instead")
def test_memory_grows_slowly_enough_for_512_mib(tmp_path: Path) -> None:
    """Every byte is a token here, which is the worst that there is."""
    base_model = save_tiny_model(tmp_path / "base")
    small, large = (measured(base_model, tmp_path, mib << 20) for mib in (1, 4))
    slope = (large["peak"]["anonymous"] - small["peak"]["anonymous"]) / (3 << 20)
    assert small["before"]["anonymous"] + slope * PROMISED < BOUND
    assert slope < 3, (small, large)


@pytest.mark.skipif(not LARGE_MIB, reason="takes long")
def test_512_mib_train_within_2_gib(tmp_path: Path) -> None:
    found = measured(pulled(), tmp_path, LARGE_MIB << 20)
    assert found["peak"]["anonymous"] < BOUND, found
