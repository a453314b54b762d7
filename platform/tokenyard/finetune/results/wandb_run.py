"""A run of Weights & Biases as the file that its `wandb sync` uploads: nothing here has a key of theirs, or asks them.

`python -m tokenyard.finetune.results.wandb_run` is the process that writes it: the library starts another one and takes
some 60 MB, which no worker is to keep.
"""

import asyncio
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import msgspec

from tokenyard.core.errors import Unavailable
from tokenyard.finetune.job import WandbSettings

TIME_LIMIT_S = 60.0
_KEPT_VARIABLES = ("PATH", "PYTHONPATH")


class LoggedStep(msgspec.Struct, frozen=True):
    """The figures of a step by name, and when they were told, in unix seconds."""

    step: int
    told_at: int
    figures: dict[str, float]


class WandbRun(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run; `job` is its id, and `config` what it was set to."""

    job: str
    base_model: str
    settings: WandbSettings
    config: dict[str, object]
    steps: list[LoggedStep]


def wandb_is_installed() -> bool:
    """Tell whether runs can be written: the library is an extra of its own."""
    return importlib.util.find_spec("wandb") is not None


async def wandb_file(run: WandbRun) -> bytes:
    """Return the file, as another process writes it, which takes seconds.

    Raises:
        Unavailable: it could not be written, or not within TIME_LIMIT_S.
    """
    with tempfile.TemporaryDirectory(prefix="tokenyard-wandb-") as folder:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**kept, "HOME": folder},  # no key or setting of whoever runs the worker
            cwd=folder,
        )
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                _, complaints = await process.communicate(msgspec.json.encode(run))
        except TimeoutError:
            raise Unavailable(f"A run of Weights & Biases was not written within {TIME_LIMIT_S:.0f} s.") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise Unavailable(f"A run of Weights & Biases was not written: {complaints.decode()[-500:]}")
        (file,) = await asyncio.to_thread(lambda: list(Path(folder).glob("wandb/offline-run-*/*.wandb")))
        return await asyncio.to_thread(file.read_bytes)


def _write(run: WandbRun, folder: str) -> None:
    # Heavy, and of this process alone.
    import wandb  # noqa: PLC0415

    nothing_of_the_machine = {
        **{"disable_git": True, "disable_code": True, "console": "off", "program": "tokenyard", "host": "tokenyard"},
        **{"x_disable_stats": True, "x_disable_meta": True, "x_disable_machine_info": True},
        **{"x_save_requirements": False, "username": "tokenyard"},
    }
    asked = run.settings
    logged = wandb.init(
        id=run.job,
        project=asked.project,
        entity=asked.entity,
        name=asked.name or run.job,
        tags=[*asked.tags, "tokenyard/finetune", f"tokenyard/{run.base_model}", f"tokenyard/{run.job}"],
        config=run.config,
        settings=wandb.Settings(mode="offline", root_dir=folder, silent=True, **nothing_of_the_machine),
    )
    for each in run.steps:
        logged.log({**each.figures, "_timestamp": float(each.told_at)}, step=each.step)
    logged.finish()


if __name__ == "__main__":
    _write(msgspec.json.decode(sys.stdin.buffer.read(), type=WandbRun), sys.argv[1])
