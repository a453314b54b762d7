"""The attempt's folder as the training side sees it: on a local disk or an object store (fsspec)."""

import time
from pathlib import Path
from typing import Literal
from uuid import uuid4

import fsspec
import msgspec

from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BEGUN_FILE,
    CHECKPOINT_FILE,
    CHECKPOINTS_FOLDER,
    EVENTS_FOLDER,
    PAUSE_FILE,
    RESULT_FILE,
    RESUME_FOLDER,
    RESUME_POINT_FILE,
    ResumePoint,
    TrainingCheckpoint,
    TrainingError,
    TrainingEvent,
    TrainingResult,
    TrainingSpec,
    event_file,
    step_folder,
)

_SUMMARY = "summary.json"
_UPLOADING = "uploading"
_FAILURE = "failure.json"
_ADAPTER = (ADAPTER_WEIGHTS, ADAPTER_CONFIG)
_SHARDED = ("pytorch_model_fsdp.bin", "optimizer.bin")  # of what was spread over workers, whole again
_RESUME_STATE = (*_ADAPTER, "trainer_state.json", "optimizer.pt", "scheduler.pt", *_SHARDED)
_RANDOM_STATES = "rng_state*.pth"  # one for each worker


class DatasetCounts(msgspec.Struct, frozen=True):
    """Figures that only the worker knows, because it read the data. `base` are the base model's on held-out rows."""

    tokens_per_epoch: int
    base: dict[str, float] = {}


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
        checkpoint: TrainingCheckpoint | None = None,
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
            checkpoint=checkpoint,
        )
        self.write(event_file(self._seq), msgspec.json.encode(event))

    def write(self, path: str, data: bytes) -> None:
        """Write a small file; it appears whole or not at all."""
        partial = f"{self.root}/{_UPLOADING}/{uuid4().hex}"  # workers may write the same file at the same moment
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
        """Put up the adapter of a trainer's checkpoint."""
        self.remove(checkpoint.path)
        self._put(checkpoint.path, [source / name for name in _ADAPTER])
        self.write(f"{checkpoint.path}/{CHECKPOINT_FILE}", msgspec.json.encode(checkpoint))

    def save_random_state(self, source: Path, step: int) -> None:
        """Put up what only this worker has of a resume point, before the first one puts up the rest."""
        self._put(step_folder(RESUME_FOLDER, step), sorted(source.glob(_RANDOM_STATES)))

    def save_resume_point(self, source: Path, point: ResumePoint) -> None:
        """Put up all that is needed to go on from a trainer's checkpoint; then drop the points before it."""
        folder = step_folder(RESUME_FOLDER, point.step_number)
        self._put(folder, [*(source / name for name in _RESUME_STATE), *sorted(source.glob(_RANDOM_STATES))])
        self.write(f"{folder}/{RESUME_POINT_FILE}", msgspec.json.encode(point))
        for name in self._names(RESUME_FOLDER):
            earlier = f"{RESUME_FOLDER}/{name}"
            if earlier != folder:
                self.remove(f"{earlier}/{RESUME_POINT_FILE}")  # first, so that what is half gone is no point
                self.remove(earlier)

    def resume_point(self) -> ResumePoint | None:
        """Return the last one that is whole."""
        for name in reversed(self._names(RESUME_FOLDER)):
            data = self.read(f"{RESUME_FOLDER}/{name}/{RESUME_POINT_FILE}")
            if data is not None:
                return msgspec.json.decode(data, type=ResumePoint)
        return None

    def begin(self) -> None:
        """Tell that the workers have room, and training takes time from now on."""
        self.write(BEGUN_FILE, b"{}")

    def is_to_pause(self) -> bool:
        """Tell whether the attempt was asked to end at its next step."""
        self.fs.invalidate_cache()
        return bool(self.fs.exists(f"{self.root}/{PAUSE_FILE}"))

    def checkpoints(self) -> list[TrainingCheckpoint]:
        """Return the whole checkpoints, in order."""
        found = []
        for name in self._names(CHECKPOINTS_FOLDER):
            data = self.read(f"{CHECKPOINTS_FOLDER}/{name}/{CHECKPOINT_FILE}")
            if data is not None:
                found.append(msgspec.json.decode(data, type=TrainingCheckpoint))
        return sorted(found, key=lambda checkpoint: checkpoint.step_number)

    def download(self, path: str, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for name in self._names(path):
            self.fs.get_file(f"{self.root}/{path}/{name}", str(target / name))

    def _put(self, folder: str, files: list[Path]) -> None:
        self.fs.makedirs(f"{self.root}/{folder}", exist_ok=True)
        for file in files:
            if file.is_file():
                self.fs.put_file(str(file), f"{self.root}/{folder}/{file.name}")

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
