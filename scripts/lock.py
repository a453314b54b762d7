"""Write `requirements/*.lock` from `pyproject.toml` and `clients.in`, with `uv`, for every platform at once.

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
    """Compile all locks."""
    for accelerator, left_out in LEFT_OUT.items():
        left = (word for name in left_out for word in ("--no-emit-package", name))
        lock(accelerator, "pyproject.toml", "--extra", accelerator, "--extra", "dev", *left, *sources(accelerator))
    lock("clients", "requirements/clients.in")


def lock(name: str, *arguments: str) -> None:
    """Write `requirements/<name>.lock` from what `arguments` of `uv pip compile` name."""
    how = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header", "--quiet")
    into = f"requirements/{name}.lock"
    command = (installed_uv(), "pip", "compile", *arguments, *how, "-o", into, *sys.argv[1:])
    subprocess.run(command, cwd=ROOT, check=True)
    print(f"lock: wrote {into}")


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
