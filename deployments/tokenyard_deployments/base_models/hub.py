"""Downloads from the Hugging Face hub: at one commit, checked against what the hub lists, going on where one broke.

What the client heeds it reads itself: `HF_TOKEN`, `HF_ENDPOINT` for a mirror, proxies.
"""

import errno
import fnmatch
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tokenyard.core.model_files.sources import HuggingFaceSource
from tokenyard_deployments.base_models.failures import FetchFailed, Progress, require_space

# The last two are of a model of sentence-transformers, which has a folder for each layer after its first.
MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "[0-9]_*/*.json", "[0-9]_*/*.safetensors")

_CLIENTS_OWN = ".cache"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AGAIN = "What has come is kept: pull again to go on."


class ListedFile(msgspec.Struct, frozen=True):
    """A file as the hub lists it: of a large one the SHA-256, of a small one git's own hash."""

    size: int
    sha256: str | None
    git_hash: str

    def is_in(self, file: Path) -> bool:
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        with file.open("rb") as opened:
            if self.sha256 is not None:
                return hashlib.file_digest(opened, "sha256").hexdigest() == self.sha256
            # Git's own: it names files by it, and there is nothing better for small ones.
            return hashlib.sha1(b"blob %d\0" % self.size + opened.read()).hexdigest() == self.git_hash  # noqa: S324


def download(source: HuggingFaceSource, into: Path, progress: Progress) -> HuggingFaceSource:
    """Fill `into`, where an earlier try may have left files; return the source with the commit that came.

    Raises:
        FetchFailed: the hub does not have it or does not give it to us, what came is not what it lists, or the disk is
            full.
    """
    # The client reads its environment as it is loaded; it speaks HTTP by `httpx2`.
    from httpx2 import TransportError  # noqa: PLC0415
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    progress(f"asking the Hugging Face hub for {source.repository}@{source.revision}")
    try:
        commit, files = _listed(source)
        require_space(sum(file.size for file in files.values()) - _bytes_in(into), into)
        progress(f"downloading {source.repository}@{commit}: {sum(file.size for file in files.values()) >> 20} MiB")
        snapshot_download(source.repository, revision=commit, local_dir=into, allow_patterns=list(files))
    except (HfHubHTTPError, HFValidationError, TransportError, OSError) as error:
        raise FetchFailed(_in_words(source, error, into)) from error
    progress("checking the download")
    _check(files, into)
    shutil.rmtree(into / _CLIENTS_OWN, ignore_errors=True)
    for path in sorted(into.rglob("*")):
        if path.is_file() and path.relative_to(into).as_posix() not in files:
            path.unlink()  # of an earlier try, of another commit
    return HuggingFaceSource(source.repository, commit)


def _listed(source: HuggingFaceSource) -> tuple[str, dict[str, ListedFile]]:
    from huggingface_hub import HfApi  # noqa: PLC0415

    info: Any = HfApi().model_info(source.repository, revision=source.revision, files_metadata=True)
    files = {
        one.rfilename: ListedFile(one.size, None if one.lfs is None else one.lfs.sha256, one.blob_id)
        for one in info.siblings
        if any(_matches(one.rfilename, pattern) for pattern in MODEL_FILES)
    }
    return info.sha, files


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


def _check(files: Mapping[str, ListedFile], folder: Path) -> None:
    for name, listed in files.items():
        if not listed.is_in(folder / name):
            (folder / name).unlink(missing_ok=True)  # so that the next try fetches it anew
            raise FetchFailed(f"{name} did not come as the hub lists it: its hash is another. {_AGAIN}")


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _in_words(source: HuggingFaceSource, error: Exception, folder: Path) -> str:
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository = source.repository
    if isinstance(error, GatedRepoError):
        return (
            f"{repository} is given only to those who have accepted its terms: accept them on its page, and set"
            " HF_TOKEN to a token of that account"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} has no revision {source.revision!r}"
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no {repository}, or it is private and HF_TOKEN is no token of somebody who may read it"
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"the disk of {folder} is full. {_AGAIN}"
    reason = str(error).strip().splitlines()
    return f"cannot download {repository!r} from the Hugging Face hub: {reason[0] if reason else error!r}. {_AGAIN}"
