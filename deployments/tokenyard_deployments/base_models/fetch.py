"""Fetches and converts base models: `python -m tokenyard_deployments.base_models.fetch pull <what> --into <folder>`.

<what> is the id of a description in `deployments/models`, a description's own file, a Hugging Face id, a local folder
or a GGUF file. Progress goes to standard output, one JSON object a line: `{"step": ...}` while it works, then
`{"done": {...}}` or `{"error": ...}`; the exit status is 0 or 1.
"""

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tokenyard.core.model_files.reading import read_model_spec, write_model_spec
from tokenyard.core.model_files.sources import FolderSource, GgufSource, HuggingFaceSource, ModelSource
from tokenyard.core.models import InvalidModelSpec, ModelSpec
from tokenyard_deployments.base_models.content import content_hash
from tokenyard_deployments.base_models.draft import draft_spec
from tokenyard_deployments.base_models.failures import FetchFailed, Progress
from tokenyard_deployments.base_models.hub import download
from tokenyard_deployments.base_models.pinned import BrokenModel, check_content, check_model
from tokenyard_deployments.base_models.sources import fetch

TEMPLATE = "chat_template.jinja"
"""Where serving and training both look for a model's chat template first."""

_PACKAGE = Path(__file__).parent.parent


def shipped_specs() -> Path:
    """Return the folder of the descriptions that come with Tokenyard, in the source tree or in the wheel."""
    source = _PACKAGE.parent / "models"
    return source if source.is_dir() else _PACKAGE.parent / "tokenyard" / "shipped" / "deployments" / "models"


class PulledFolder(NamedTuple):
    """`source` is what came: where a branch was asked for, the commit."""

    source: ModelSource
    content_hash: str


def pull(
    source: ModelSource, into: Path, progress: Progress, *, template: str | None = None, pinned: str | None = None
) -> PulledFolder:
    """Make `into` a complete base model; it appears whole or not at all, and one that is there already is kept.

    `template` takes the place of its chat template, also where it is there already; `pinned` is its content hash.

    Raises:
        FetchFailed: the files cannot be had or converted.
        BrokenModel: what was fetched, or what stands at `into`, is not a complete model, or not the pinned one.
    """
    came = None if into.exists() else _pull_once(source, into, progress, pinned)
    if came is None:
        progress(f"{into.name} is there already")
    check_model(into)
    check_content(into, pinned)
    _take_template(into, template)
    return PulledFolder(came or source, content_hash(into))


def _pull_once(source: ModelSource, into: Path, progress: Progress, pinned: str | None) -> ModelSource | None:
    """Fetch it, one process of this machine at a time; return what came, or None where another has just brought it."""
    partial = into.with_name(f".{into.name}.partial")
    with _locked(partial):
        if into.exists():
            shutil.rmtree(partial)
            return None
        if isinstance(source, HuggingFaceSource):
            return _pull_from_hub(source, into, partial, progress, pinned)
        try:
            with tempfile.TemporaryDirectory(dir=partial) as work:
                fresh, scratch = Path(work, "model"), Path(work, "scratch")
                fresh.mkdir()
                scratch.mkdir()
                fetch(source, fresh, scratch, progress)
                _finish(fresh, into, pinned)
        finally:
            shutil.rmtree(partial)
        return source


def _pull_from_hub(
    source: HuggingFaceSource, into: Path, partial: Path, progress: Progress, pinned: str | None
) -> HuggingFaceSource:
    """Download to `partial`, which stays where the download breaks."""
    came = download(source, partial, progress)
    try:
        _finish(partial, into, pinned)
    except BrokenModel:
        shutil.rmtree(partial)
        raise
    return came


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder, and be the only one in it. Who had it before may have moved it away, or removed it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is(handle, folder):
                yield
                return
        finally:
            os.close(handle)


def _is(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False


def _finish(fresh: Path, into: Path, pinned: str | None) -> None:
    check_model(fresh)
    check_content(fresh, pinned)
    for path in fresh.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    fresh.chmod(0o755)
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
        template, pinned = (None, None) if spec is None else (spec.chat_template, spec.content_hash)
        pulled = pull(source, chosen.into, lambda step: _say({"step": step}), template=template, pinned=pinned)
        if chosen.write_spec and not chosen.write_spec.exists():
            spec = spec or draft_spec(chosen.into, _pinned(pulled.source, chosen.into), pulled.content_hash)
            chosen.write_spec.write_bytes(write_model_spec(spec))
    except (FetchFailed, BrokenModel, InvalidModelSpec, OSError) as error:
        _say({"error": str(error)})
        return 1
    model = spec.id if spec else chosen.into.name
    _say({"done": {"path": str(chosen.into.absolute()), "id": model, "content_hash": pulled.content_hash}})
    return 0


def _pinned(source: ModelSource, folder: Path) -> ModelSource:
    if isinstance(source, HuggingFaceSource) and not source.pinned:
        raise FetchFailed(
            f"{folder} is there already and does not say of which commit it is: pull {source.repository}@COMMIT, or"
            " remove the folder"
        )
    return source


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
