"""Makes sure that the base models are there, by running the fetcher as a process and passing on what it says."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence

import msgspec

from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import InvalidModelSpec, ModelTask
from tokenyard.settings import Settings
from tokenyard.stack.installation import StackFailed
from tokenyard.stack.progress import Progress

PULL_TIMEOUT_S = 3600.0


class PulledModel(msgspec.Struct, frozen=True):
    """A model that is there: its id, its local folder, and the hash of what adapters are trained against."""

    id: str
    path: str
    content_hash: str


class _Said(msgspec.Struct):
    """One line of the fetcher."""

    step: str | None = None
    done: PulledModel | None = None
    error: str | None = None


def task_of(settings: Settings, model: str) -> ModelTask:
    """Return what a configured model is for; one without a usable description, which others report, is for chats."""
    try:
        return read_model_spec((settings.models_dir / f"{model}.yaml").read_bytes()).task
    except (OSError, InvalidModelSpec):
        return ModelTask.CHAT


async def pull_served(
    settings: Settings, models: Sequence[str], environment: Mapping[str, str], progress: Progress
) -> None:
    """Fetch the described models that are not there yet, and look whether those that are there are the right ones.

    Raises:
        StackFailed: one cannot be had, or is there and is another or not complete.
    """
    for model in models:
        with progress.step(f"Base model {model}") as step:
            folder = settings.effective_models_path / model
            stood_there = folder.exists()
            arguments = (model, "--into", str(folder), "--specs", str(settings.models_dir))
            try:
                await pull(arguments, environment, step.show)
            except StackFailed as failure:
                hint = f"Remove {folder} to fetch it again." if stood_there else "Models are set by TOKENYARD_MODELS."
                raise StackFailed(f"{failure}. {hint}") from failure


async def pull(
    arguments: tuple[str, ...], environment: Mapping[str, str], on_step: Callable[[str], None]
) -> PulledModel:
    """Run `tokenyard_deployments.base_models.fetch pull`.

    Raises:
        StackFailed: the model cannot be had, or what lies there is not complete.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tokenyard_deployments.base_models.fetch", "pull", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PULL_TIMEOUT_S):
            return await _follow(process, on_step)
    except TimeoutError:
        raise StackFailed(f"The model did not arrive within {PULL_TIMEOUT_S:.0f} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _follow(process: asyncio.subprocess.Process, on_step: Callable[[str], None]) -> PulledModel:
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = asyncio.create_task(process.stderr.read())
    last = _Said()
    async for line in process.stdout:
        try:
            last = msgspec.json.decode(line, type=_Said)
        except msgspec.MsgspecError:  # a library's own words
            continue
        if last.step is not None:
            on_step(last.step)
    status = await process.wait()
    said = (await complaints).decode(errors="replace").strip()
    if status == 0 and last.done is not None:
        return last.done
    reason = last.error or (said.splitlines()[-1] if said else f"the fetcher ended with status {status}")
    raise StackFailed(f"The base model is not usable: {reason}")
