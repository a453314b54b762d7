"""Fetches and converts base models: `python -m tokenyard_deployments.base_models.fetch pull <what> --into <folder>`.

<what> is the id of a description in `deployments/models`, a description's own file, a Hugging Face id, a local folder
or a GGUF file. Progress goes to standard output, one JSON object a line: `{"step": ...}` while it works, then
`{"done": {...}}` or `{"error": ...}`; the exit status is 0 or 1.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tokenyard.core.models import (
    FolderSource,
    GgufSource,
    HuggingFaceSource,
    InvalidModelSpec,
    ModelSource,
    ModelSpec,
    read_model_spec,
    write_model_spec,
)
from tokenyard_deployments.base_models.draft import draft_spec
from tokenyard_deployments.base_models.sources import FetchFailed, Progress, fetch

TEMPLATE = "chat_template.jinja"
"""Where serving and training both look for a model's chat template first."""

_PACKAGE = Path(__file__).parent.parent


class BrokenModel(Exception):
    """A folder that is not a complete base model; the message says what is missing."""


def shipped_specs() -> Path:
    """Return the folder of the descriptions that come with Tokenyard, in the source tree or in the wheel."""
    source = _PACKAGE.parent / "models"
    return source if source.is_dir() else _PACKAGE.parent / "tokenyard" / "shipped" / "deployments" / "models"


def check_model(folder: Path) -> None:
    """Raise `BrokenModel` where `folder` lacks config, weights or tokenizer, or needs code of its own to run."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        raise BrokenModel(f"{folder} has no config.json") from None
    except ValueError as error:
        raise BrokenModel(f"{folder / 'config.json'} is not JSON: {error}") from error
    if "auto_map" in config:
        raise BrokenModel("the model needs code of its own to run; Tokenyard runs no foreign code")
    if not any(folder.glob("*.safetensors")):
        raise BrokenModel(f"{folder} has no *.safetensors weights (pickled weights are not taken)")
    if not (folder / "tokenizer.json").is_file():
        raise BrokenModel(f"{folder} has no tokenizer.json")


def pull(source: ModelSource, into: Path, progress: Progress, *, template: str | None = None) -> None:
    """Make `into` a complete base model; it appears whole or not at all, and one that is there already is kept.

    `template` takes the place of its chat template, also where it is there already.

    Raises:
        FetchFailed: the files cannot be had or converted.
        BrokenModel: what was fetched, or what stands at `into`, is not a complete model.
    """
    if into.exists():
        check_model(into)
        _take_template(into, template)
        progress(f"{into.name} is there already")
        return
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}-") as work:
        fresh, scratch = Path(work, "model"), Path(work, "scratch")
        fresh.mkdir()
        scratch.mkdir()
        fetch(source, fresh, scratch, progress)
        check_model(fresh)
        _take_template(fresh, template)
        for path in fresh.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        _publish(fresh, into)


def _take_template(folder: Path, template: str | None) -> None:
    place = folder / TEMPLATE
    if template is None or (place.is_file() and place.read_text(encoding="utf-8") == template):
        return
    fresh = folder / f".{TEMPLATE}-{os.getpid()}"
    fresh.write_text(template, encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(place)


def _publish(fresh: Path, into: Path) -> None:
    try:
        os.rename(fresh, into)
    except OSError:
        # Another pull of the same model was first: the two are the same.
        check_model(into)
        shutil.rmtree(fresh)


def source_of(what: str, specs: Path) -> tuple[ModelSource, ModelSpec | None]:
    """Return where `what` comes from and, where it names one, its description.

    Raises:
        FetchFailed: nothing is meant by it.
        InvalidModelSpec: the description is wrong.
    """
    named = Path(what) if what.endswith((".yaml", ".yml")) else specs / f"{what}.yaml"
    if named.is_file():
        spec = read_model_spec(named.read_bytes())
        return spec.source, spec
    local = Path(what).expanduser()
    if local.is_dir():
        return FolderSource(str(local.absolute())), None
    if local.suffix == ".gguf":
        return GgufSource(str(local.absolute())), None
    repository, _, revision = what.partition("@")
    if repository.count("/") == 1 and not what.startswith(("/", ".", "~")):
        return HuggingFaceSource(repository, revision or "main"), None
    known = ", ".join(sorted(path.stem for path in specs.glob("*.yaml"))) or "none"
    raise FetchFailed(
        f"{what!r} is no known model ({known}), no Hugging Face id (owner/name), no folder and no .gguf file"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tokenyard_deployments.base_models.fetch", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("pull")
    command.add_argument("what")
    command.add_argument("--into", type=Path, required=True, help="the folder to make")
    command.add_argument("--specs", type=Path, default=shipped_specs(), help="folder of model descriptions")
    command.add_argument("--write-spec", type=Path, help="also write a drafted description of the model to this file")
    chosen = parser.parse_args(arguments)
    try:
        source, spec = source_of(chosen.what, chosen.specs)
        template = None if spec is None else spec.chat_template
        pull(source, chosen.into, lambda step: _say({"step": step}), template=template)
        if chosen.write_spec and not chosen.write_spec.exists():
            spec = spec or draft_spec(chosen.into, source)
            chosen.write_spec.write_bytes(write_model_spec(spec))
    except (FetchFailed, BrokenModel, InvalidModelSpec, OSError) as error:
        _say({"error": str(error)})
        return 1
    _say({"done": {"path": str(chosen.into.absolute()), "id": spec.id if spec else chosen.into.name}})
    return 0


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
