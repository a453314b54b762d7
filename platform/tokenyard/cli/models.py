"""`tokenyard models`: what is served, and fetching base models."""

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tokenyard.cli.command import CommandFailed, CommandRun, JsonOption, guarded, platform_command
from tokenyard.cli.output import CommandOutput, as_json, table, write
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import InvalidModelSpec
from tokenyard.settings import Settings
from tokenyard.stack.base_models import pull
from tokenyard.stack.installation import child_environment, load_settings
from tokenyard.stack.model_check import check_model
from tokenyard.stack.progress import Progress

models = typer.Typer(help="Base models.", no_args_is_help=True)


@platform_command(models, "list")
async def listing(run: CommandRun) -> CommandOutput:
    """List the base models of this installation."""
    found = [model async for model in run.api.models()]
    rows = [
        (one.id, one.task, one.context_length, one.callable, one.price_id, one.adapters.get("live", 0)) for one in found
    ]
    return CommandOutput(found, table(("MODEL", "FOR", "CONTEXT", "CALLABLE", "PRICE", "LIVE FINE-TUNES"), rows))


@models.command("pull")
def pull_model(
    what: Annotated[str, typer.Argument(help="A described model's id, a Hugging Face id, a folder or a .gguf file.")],
    name: Annotated[str | None, typer.Option("--as", help="The model's public id; default: made of its name.")] = None,
    json: JsonOption = False,
) -> None:
    """Fetch (and where needed convert) a base model to this machine; no running platform is needed."""
    guarded(lambda: _pull(what, name, json=json))


def _pull(what: str, name: str | None, *, json: bool) -> None:
    settings = load_settings()
    model = name or model_id(what, settings)
    arguments: tuple[str, ...] = (
        what,
        "--into",
        str(settings.effective_models_path / model),
        "--specs",
        str(settings.models_dir),
    )
    description = settings.models_dir / f"{model}.yaml"
    if not description.exists():
        arguments = (*arguments, "--write-spec", str(description))
    environment = child_environment(settings, os.environ)
    if json:
        write(as_json(msgspec.to_builtins(asyncio.run(pull(arguments, environment, lambda _step: None)))))
        return
    progress = Progress()
    with progress.step(f"Base model {model}") as step:
        done = asyncio.run(pull(arguments, environment, step.show))
    progress.say(f"It lies in {done.path}; {description} says how it is served. Content hash: {done.content_hash}")
    if model not in settings.models:
        served = ",".join((*settings.models, model))
        progress.say(
            "To serve it: publish a rate card that has it (`tokenyard prices publish FILE`; it starts a quarter of an"
            f" hour later at the earliest), then `tokenyard deploy` with TOKENYARD_MODELS={served}."
        )


@models.command("check")
def check_file(
    what: Annotated[str, typer.Argument(help="A described model's id, or a description's file.")],
    accelerator: Annotated[
        list[str] | None, typer.Option("--accelerator", help="cpu or cuda; default: all that the file describes.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Ask Ray and vLLM whether they would serve a model as its file says; no GPU and no running platform is needed."""
    guarded(lambda: _check(what, accelerator, json=json))


def _check(what: str, accelerators: list[str] | None, *, json: bool) -> None:
    settings = load_settings()
    file = Path(what) if what.endswith((".yaml", ".yml")) else settings.models_dir / f"{what}.yaml"
    try:
        spec = read_model_spec(file.read_bytes())
    except (OSError, InvalidModelSpec) as error:
        raise CommandFailed(f"{file}: {error}") from error
    folder = settings.effective_models_path / spec.id
    seen, environment = folder if folder.is_dir() else None, child_environment(settings, os.environ)
    kinds = accelerators or sorted(spec.accelerators)
    found = [asyncio.run(check_model(file, kind, seen, environment)) for kind in kinds]
    if json:
        write(as_json(msgspec.to_builtins(found)))
        return
    rows = [(one.kind, one.workers, _in_words(one.bundle_per_worker), one.placement, one.gpu) for one in found]
    write(table(("ON", "WORKERS A REPLICA", "EACH", "PLACEMENT", "GPU"), rows))
    if seen is None and found:
        write(f"The model itself was not looked at: fetch it with `tokenyard models pull {what}`.")


def _in_words(bundle: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in bundle.items())


def model_id(what: str, settings: Settings) -> str:
    """Return the public id under which `what` will be known."""
    if (settings.models_dir / f"{what}.yaml").exists():
        return what
    last = Path(what.partition("@")[0]).name.removesuffix(".gguf")
    return re.sub(r"[^a-z0-9.-]+", "-", last.lower()).strip("-.")
