"""Write `requirements/*.lock` from `pyproject.toml`, with `uv`, for every platform at once.

torch and its companions of the CPU build are left out of `cpu.lock`: they are not on the main index (see setup.py).
"""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV_VENV = ROOT / "build" / "uv"
UV = "uv==0.13.9"
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LEFT_OUT = {"cpu": ("torch", "torchvision", "torchaudio", "torchcodec"), "cuda": ()}


def main() -> None:
    """Compile both locks."""
    uv = installed_uv()
    for accelerator, left_out in LEFT_OUT.items():
        subprocess.run(
            [
                *(uv, "pip", "compile", "pyproject.toml", "--extra", accelerator, "--extra", "dev"),
                *("--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header"),
                *(word for name in left_out for word in ("--no-emit-package", name)),
                *sources(accelerator),
                *("--quiet", "-o", f"requirements/{accelerator}.lock", *sys.argv[1:]),
            ],
            cwd=ROOT,
            check=True,
        )
        print(f"lock: wrote requirements/{accelerator}.lock")


def installed_uv() -> str:
    uv = UV_VENV / "bin" / "uv"
    if not uv.exists():
        venv.create(UV_VENV, with_pip=True)
        subprocess.run([UV_VENV / "bin" / "pip", "install", "--quiet", UV], check=True)
    return str(uv)


def sources(accelerator: str) -> list[str]:
    """Say where packages come from: uv does not read pip's own settings."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    folders: list[str] = []
    for line in asked.splitlines():
        name, _, value = line.partition("=")
        if name.endswith("find-links"):
            folders.extend(value.strip("'\"").split())
    found = [word for folder in dict.fromkeys(folders) for word in ("--find-links", folder)]
    if accelerator == "cpu" and not folders:
        found += ["--extra-index-url", PYTORCH_CPU_INDEX, "--index-strategy", "unsafe-best-match"]
    return found


if __name__ == "__main__":
    main()
