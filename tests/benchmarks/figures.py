"""A benchmark's figures on the terminal and in build/bench, with what they were measured on."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def write_figures(name: str, measured: Mapping[str, float | str]) -> None:
    figures = {
        **measured,
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "revision": _revision(),
    }
    target = ROOT / "build" / "bench" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n")
    width = max(map(len, figures))
    for key, value in figures.items():
        print(f"{key:{width}}  {value}")  # noqa: T201


def _revision() -> str:
    result = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"
