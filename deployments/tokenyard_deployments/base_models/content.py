"""What a base model is: the hash of its weights. Names and paths may be anything; an adapter fits one content."""

import hashlib
import logging
from pathlib import Path
from uuid import uuid4

import msgspec

_LOG = logging.getLogger(__name__)
MEMO_FILE = ".content.json"


class _Memo(msgspec.Struct, frozen=True):
    """The hash of files that had these sizes and times (nanoseconds): hashing large weights anew takes minutes."""

    files: dict[str, tuple[int, int]]
    digest: str


def content_hash(folder: Path) -> str:
    """Return the SHA-256 over the sorted `name sha256` lines of the model's weights.

    Config and tokenizer are left out: what writes them puts its own version into them.

    Raises:
        FileNotFoundError: there are no weights.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"{folder} has no *.safetensors weights")
    files = {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in weights}
    known = _known(folder / MEMO_FILE)
    if known is not None and known.files == files:
        return known.digest
    lines = "".join(f"{file.name} {_sha256(file)}\n" for file in weights)
    memo = _Memo(files, hashlib.sha256(lines.encode()).hexdigest())
    _remember(folder / MEMO_FILE, memo)
    return memo.digest


def _known(file: Path) -> _Memo | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Memo)
    except (OSError, msgspec.MsgspecError):
        return None


def _remember(file: Path, memo: _Memo) -> None:
    fresh = file.with_name(f"{file.name}-{uuid4().hex}")
    try:
        fresh.write_bytes(msgspec.json.encode(memo))
        fresh.replace(file)
    except OSError as error:  # a folder that is only read is hashed at every start
        _LOG.info("the hash of %s cannot be kept: %s", file.parent, error)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
