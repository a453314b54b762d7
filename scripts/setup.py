"""Make `.venv` with exactly the pinned versions, from nothing, with Python's standard library only.

Runs again at no cost: each step is skipped while what it depends on has not changed. `ACCELERATOR=cuda` takes the
GPU build. Everything pip says goes to `build/setup.log`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = ROOT / "build" / "setup.log"
LOCK = ROOT / "build" / "setup.lock"
STAMP = VENV / "tokenyard-setup.json"

OLDEST, TOO_NEW = (3, 11), (3, 14)
NEEDED_DISK_GB = {"cpu": 8, "cuda": 20}
NEEDED_MEMORY_GB = 7
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# These wheels from the main index are CUDA builds: beside a CPU torch they break every model import.
NOT_ON_CPU = ("torchvision", "torchaudio", "torchcodec")
HEARTBEAT_S = 15
LOG_LINES_SHOWN = 15


class SetupFailed(Exception):
    """What is wrong and what to do, in one sentence."""


def main() -> int:
    """Bring `.venv` up to date; return the exit status."""
    use_a_new_enough_python()
    try:
        with only_one():
            bring_up_to_date(os.environ.get("ACCELERATOR", "cpu"))
    except SetupFailed as failure:
        print(f"setup: {failure}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def only_one() -> Iterator[None]:
    """Wait while another setup works on the same `.venv`."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: waiting for another one in this folder ...", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def bring_up_to_date(accelerator: str) -> None:
    lock = lock_of(accelerator)
    wanted = {"dependencies": digest(lock, Path(__file__)), "project": digest(ROOT / "pyproject.toml")}
    done = read_stamp()
    if done == wanted:
        return
    if done.get("dependencies") != wanted["dependencies"]:
        STAMP.unlink(missing_ok=True)
        check_machine(accelerator)
        make_venv()
        install_dependencies(accelerator, lock)
    install_project()
    STAMP.write_text(json.dumps(wanted))


def use_a_new_enough_python() -> None:
    """Go on under a Python that fits, where the one that runs this does not."""
    if OLDEST <= sys.version_info[:2] < TOO_NEW:
        return
    for minor in range(TOO_NEW[1] - 1, OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            os.execv(found, [found, *sys.argv])
    have = ".".join(map(str, sys.version_info[:3]))
    print(
        f"setup: Tokenyard needs Python 3.{OLDEST[1]} to 3.{TOO_NEW[1] - 1}, and this is {have}."
        f" Install one, or name it: make run PYTHON=/path/to/python3.{OLDEST[1]}",
        file=sys.stderr,
    )
    sys.exit(1)


def lock_of(accelerator: str) -> Path:
    if accelerator not in NEEDED_DISK_GB:
        raise SetupFailed(f"ACCELERATOR is {accelerator!r}; it may be cpu or cuda.")
    return ROOT / "requirements" / f"{accelerator}.lock"


def digest(*files: Path) -> str:
    together = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for file in files:
        together.update(file.read_bytes())
    return together.hexdigest()


def read_stamp() -> dict[str, str]:
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def check_machine(accelerator: str) -> None:
    """Refuse early what would fail late."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        raise SetupFailed("no C compiler found. Install one (Debian, Ubuntu: apt install build-essential).")
    needed_gb = NEEDED_DISK_GB[accelerator]
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < needed_gb:
        raise SetupFailed(f"{free_gb:.1f} GB of disk are free in {ROOT}; {needed_gb} GB are needed.")
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if memory_gb < NEEDED_MEMORY_GB:
        print(f"setup: this machine has {memory_gb:.1f} GB of memory; `tokenyard up` wants {NEEDED_MEMORY_GB} GB.")


def make_venv() -> None:
    if PYTHON.exists() and version_of(PYTHON) == sys.version_info[:2]:
        return
    done = step("making .venv")
    LOG.parent.mkdir(exist_ok=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, check=False)
    if made.returncode:
        LOG.write_bytes(made.stdout + made.stderr)
        version = f"3.{sys.version_info[1]}"
        raise SetupFailed(
            f"Python could not make a virtual environment (Debian, Ubuntu: apt install python{version}-venv). See {LOG}"
        )
    done()


def version_of(python: Path) -> tuple[int, ...]:
    asked = [str(python), "-c", "import sys; print(*sys.version_info[:2])"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    return tuple(map(int, answer.stdout.split()))


def install_dependencies(accelerator: str, lock: Path) -> None:
    if accelerator == "cpu":
        install_cpu_torch()
    total = len(re.findall(r"^[a-z0-9].*==", lock.read_text(), re.MULTILINE))
    done = step(f"installing about {total} pinned packages for {accelerator} (some GB, some minutes)")
    pip("install", "--no-deps", "--require-hashes", "-r", str(lock), total=total)
    if accelerator == "cpu":
        pip("uninstall", "--yes", *NOT_ON_CPU)
    done()
    done = step("compiling them to bytecode")
    compile_bytecode(next(VENV.glob("lib/python3.*/site-packages")))
    done()


def compile_bytecode(*folders: Path) -> None:
    """Compile on all cores; pip would do it on one, for a third of the whole time.

    Files that are no valid Python are there too (templates, tests): they are passed over.
    """
    subprocess.run([PYTHON, "-m", "compileall", "-qq", "-j", "0", *folders], check=False)


def install_cpu_torch() -> None:
    """A machine's own package source may carry the CPU build; else it comes from PyTorch's own index."""
    import tomllib  # here, so that an old Python gets as far as the message about its age

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["cpu"]
    torch = next(requirement for requirement in extra if requirement.startswith("torch=="))
    done = step(f"installing {torch}")
    try:
        pip("install", "--no-deps", torch)
    except SetupFailed:
        pip("install", "--no-deps", "--extra-index-url", PYTORCH_CPU_INDEX, torch)
    done()


def install_project() -> None:
    done = step("installing tokenyard itself")
    pip("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    compile_bytecode(*(ROOT / folder for folder in ("platform", "deployments", "billing")))
    done()


def step(what: str) -> Callable[[], None]:
    """Say that `what` begins; the returned function says how long it took."""
    print(f"setup: {what} ...", flush=True)
    began = time.monotonic()
    return lambda: print(f"setup: {what}: done in {time.monotonic() - began:.0f} s", flush=True)


def pip(command: str, *arguments: str, total: int = 0) -> None:
    """Run pip, its words to the log; tell from time to time how far it is.

    Raises:
        SetupFailed: pip failed; the message ends with its last lines.
    """
    quiet = ("--disable-pip-version-check", "--no-input", "--no-color")
    install = ("--progress-bar", "off", "--no-compile") if command == "install" else ()
    collected, unpacking = 0, False
    lines: list[str] = []
    LOG.parent.mkdir(exist_ok=True)
    with (
        LOG.open("a") as log,
        subprocess.Popen(
            [str(PYTHON), "-m", "pip", command, *quiet, *install, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
        Heartbeat() as heartbeat,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            lines.append(line.rstrip())
            collected += line.startswith("Collecting ")
            unpacking = unpacking or line.startswith("Installing collected")
            if unpacking:
                heartbeat.says = "unpacking"
            elif total:
                heartbeat.says = f"{collected} of about {total} packages fetched"
    if process.returncode:
        last = "\n  ".join(lines[-LOG_LINES_SHOWN:])
        raise SetupFailed(f"pip could not do its work. The whole story is in {LOG}; it ends with:\n  {last}")


class Heartbeat:
    """Prints `says` every few seconds, so that a long step is seen to move."""

    def __init__(self) -> None:
        self.says = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            if self.says:
                print(f"setup:   {self.says}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
