"""Who runs the stack of a data folder: a lock that ends with its holder, and a record that outlives it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tokenyard.stack.installation import StackFailed

RUN_VARIABLE = "TOKENYARD_RUN_ID"
PART_VARIABLE = "TOKENYARD_PART"


class RunRecord(msgspec.Struct, frozen=True):
    """`id` stands in the environment of every process of the run, so each can be found after the run's own death."""

    id: str
    pid: int


def read_record(data_dir: Path) -> RunRecord | None:
    """Return the record of the last run, or None where there is none or it was cut off."""
    try:
        return msgspec.json.decode((data_dir / "run.json").read_bytes(), type=RunRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_record(data_dir: Path, record: RunRecord) -> None:
    partial = data_dir / "run.json.partial"
    partial.write_bytes(msgspec.json.encode(record))
    partial.replace(data_dir / "run.json")


def remove_record(data_dir: Path) -> None:
    (data_dir / "run.json").unlink(missing_ok=True)


def holder(data_dir: Path) -> int | None:
    """Return the process id of the running copy, or None where none runs."""
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).decode()
        return int(text) if text.isdecimal() else 0
    finally:
        os.close(descriptor)
    return None


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data folder's lock; the operating system frees it when this process ends in any way.

    Raises:
        StackFailed: another copy holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackFailed(
                f"Tokenyard already runs on {data_dir} (process {holder(data_dir) or 'unknown'})."
                " Stop it with `tokenyard down`, or give this copy its own TOKENYARD_DATA_DIR and ports."
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)
