"""The attempt's folder as the training side sees it: on a local disk or an object store (fsspec)."""

import tempfile
import time
from pathlib import Path
from typing import Literal

import fsspec
import msgspec

from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CHECKPOINTS_FOLDER,
    EVENTS_FOLDER,
    RESULT_FILE,
    TrainingCheckpoint,
    TrainingError,
    TrainingEvent,
    TrainingResult,
    TrainingSpec,
    event_file,
)

_SUMMARY = "summary.json"
_CHECKPOINT = "checkpoint.json"  # written last: the checkpoint is whole when it is there
_UPLOADING = "uploading"
_FAILURE = "failure.json"
_KEPT = (ADAPTER_WEIGHTS, ADAPTER_CONFIG, "trainer_state.json")
_RESUME_STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")


class DatasetCounts(msgspec.Struct, frozen=True):
    """Figures that only the worker knows, because it read the data."""

    tokens_per_epoch: int
    base_valid_loss: float | None = None


def read_spec(url: str) -> TrainingSpec:
    with fsspec.open(url, "rb") as file:
        return msgspec.json.decode(file.read(), type=TrainingSpec)


class AttemptFolder:
    """Writes whole files only. One process at a time writes events."""

    def __init__(self, url: str) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(url, **({"auto_mkdir": True} if url.startswith("file:") else {}))
        self._seq = max((_number(name) for name in self._names(EVENTS_FOLDER)), default=0)

    def add_event(
        self,
        message: str,
        *,
        level: Literal["info", "warn", "error"] = "info",
        metrics: dict[str, int | float] | None = None,
    ) -> None:
        """Add an event; with `metrics` it is one of type `metrics`."""
        self._seq += 1
        event = TrainingEvent(
            seq=self._seq,
            created_at=int(time.time()),
            level=level,
            message=message,
            type="message" if metrics is None else "metrics",
            data=metrics or {},
        )
        self.write(event_file(self._seq), msgspec.json.encode(event))

    def write(self, path: str, data: bytes) -> None:
        """Write a small file; it appears whole or not at all."""
        partial = f"{self.root}/{_UPLOADING}/{path}"
        self.fs.makedirs(_parent(partial), exist_ok=True)
        self.fs.makedirs(_parent(f"{self.root}/{path}"), exist_ok=True)
        self.fs.pipe_file(partial, data)
        self.fs.mv(partial, f"{self.root}/{path}")

    def read(self, path: str) -> bytes | None:
        try:
            data: bytes = self.fs.cat_file(f"{self.root}/{path}")
        except FileNotFoundError:
            return None
        return data

    def save_checkpoint(self, source: Path, checkpoint: TrainingCheckpoint) -> None:
        """Put a trainer's checkpoint up; only the newest one keeps what is needed to go on from it."""
        earlier = self.checkpoints()
        target = f"{self.root}/{checkpoint.path}"
        self.remove(checkpoint.path)
        self.fs.makedirs(target, exist_ok=True)
        for file in (source / name for name in (*_KEPT, *_RESUME_STATE)):
            if file.is_file():
                self.fs.put_file(str(file), f"{target}/{file.name}")
        self.write(f"{checkpoint.path}/{_CHECKPOINT}", msgspec.json.encode(checkpoint))
        for old in earlier:
            for name in _RESUME_STATE:
                self.remove(f"{old.path}/{name}")

    def copy_checkpoints(self, earlier: "AttemptFolder") -> None:
        """Copy an earlier attempt's checkpoints, so that this one goes on from there and reports all of them."""
        for checkpoint in earlier.checkpoints():
            with tempfile.TemporaryDirectory(prefix="tokenyard-checkpoint-") as scratch:
                earlier.download(checkpoint.path, Path(scratch))
                self.save_checkpoint(Path(scratch), checkpoint)

    def checkpoints(self) -> list[TrainingCheckpoint]:
        """Return the whole checkpoints, in order."""
        found = []
        for name in self._names(CHECKPOINTS_FOLDER):
            data = self.read(f"{CHECKPOINTS_FOLDER}/{name}/{_CHECKPOINT}")
            if data is not None:
                found.append(msgspec.json.decode(data, type=TrainingCheckpoint))
        return sorted(found, key=lambda checkpoint: checkpoint.step_number)

    def download(self, path: str, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for name in self._names(path):
            self.fs.get_file(f"{self.root}/{path}/{name}", str(target / name))

    def upload(self, source: Path, path: str) -> None:
        self.fs.makedirs(_parent(f"{self.root}/{path}"), exist_ok=True)
        self.fs.put_file(str(source), f"{self.root}/{path}")

    def write_counts(self, counts: DatasetCounts) -> None:
        """Leave the worker's figures for the driver, before training starts."""
        self.write(_SUMMARY, msgspec.json.encode(counts))

    def counts(self) -> DatasetCounts | None:
        data = self.read(_SUMMARY)
        return None if data is None else msgspec.json.decode(data, type=DatasetCounts)

    def write_failure(self, error: TrainingError) -> None:
        """Tell the driver why a worker gives up."""
        self.write(_FAILURE, msgspec.json.encode(error))

    def failure(self) -> TrainingError | None:
        data = self.read(_FAILURE)
        return None if data is None else msgspec.json.decode(data, type=TrainingError)

    def write_result(self, result: TrainingResult) -> None:
        """Write the result. Nothing is written to the folder after it."""
        self.remove(_UPLOADING)
        self.remove(_FAILURE)
        self.fs.pipe_file(f"{self.root}/{RESULT_FILE}.partial", msgspec.json.encode(result))
        self.fs.mv(f"{self.root}/{RESULT_FILE}.partial", f"{self.root}/{RESULT_FILE}")

    def remove(self, path: str) -> None:
        """Remove a file or a folder of the attempt; fine where there is none."""
        self.fs.invalidate_cache()
        if self.fs.exists(f"{self.root}/{path}"):
            self.fs.rm(f"{self.root}/{path}", recursive=True)

    def _names(self, folder: str) -> list[str]:
        self.fs.invalidate_cache()
        try:
            entries = self.fs.ls(f"{self.root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(entry.rstrip("/").rpartition("/")[2] for entry in entries)


def _number(name: str) -> int:
    stem = name.removesuffix(".json")
    return int(stem) if stem.isdecimal() else 0


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
