"""A benchmark's figures on the terminal and in build/bench, with what they were measured on."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def write_figures(name: str, measured: Mapping[str, float | str]) -> None:
    _write(name, measured)


def add_figures(name: str, measured: Mapping[str, float | str]) -> None:
    """Write one part of them; what other parts wrote stays."""
    target = _target(name)
    others: dict[str, float | str] = json.loads(target.read_bytes()) if target.is_file() else {}
    _write(name, {**others, **measured})


def _target(name: str) -> Path:
    return ROOT / "build" / "bench" / f"{name}.json"


def _write(name: str, measured: Mapping[str, float | str]) -> None:
    figures = {
        **measured,
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "revision": _revision(),
    }
    target = _target(name)
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
