"""Encoded rows on disk: written one by one as Arrow, read memory-mapped, so that no file is too large for memory."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import pyarrow as pa  # type: ignore[import-untyped]
from datasets import Dataset, concatenate_datasets

from tokenyard_deployments.training.examples import Example

BATCH_TOKENS = 1 << 18
SHARD_TOKENS = 1 << 26
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32())), ("cut", pa.int32())])
_COLUMNS = ("input_ids", "labels")


class StoredExamples(Sequence[Example]):
    """A file's examples in a folder, which must outlive this. `tokens` is what one epoch trains on."""

    def __init__(self, shards: Sequence[Path], *, tokens: int, longest: int, without_lesson: int) -> None:
        self._all = concatenate_datasets([Dataset.from_file(str(shard)) for shard in shards])
        self.tokens = tokens
        self.longest = longest
        self.without_lesson = without_lesson

    @property
    def dataset(self) -> Dataset:
        """What a trainer reads."""
        return self._all.select_columns(list(_COLUMNS))

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return Example(**self._all[index])

    def __iter__(self) -> Iterator[Example]:
        return (Example(**row) for row in self._all)


def store(examples: Iterable[Example], folder: Path) -> StoredExamples:
    """Write examples as they come, at least one; no more than a batch of them is in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = _ShardWriter(folder)
    tokens, longest, without_lesson = 0, 0, 0
    try:
        for example in examples:
            writer.add(example)
            tokens += len(example.input_ids)
            longest = max(longest, len(example.input_ids))
            without_lesson += not example.has_lesson
    finally:
        writer.close()
    return StoredExamples(writer.shards, tokens=tokens, longest=longest, without_lesson=without_lesson)


class _ShardWriter:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batch: list[Example] = []
        self._batch_tokens = 0
        self._shard_tokens = 0
        self._open: pa.RecordBatchStreamWriter | None = None
        self.shards: list[Path] = []

    def add(self, example: Example) -> None:
        self._batch.append(example)
        self._batch_tokens += len(example.input_ids)
        if self._batch_tokens >= BATCH_TOKENS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._end_shard()

    def _flush(self) -> None:
        if not self._batch:
            return
        if self._open is None:
            self.shards.append(self._folder / f"{len(self.shards):05d}.arrow")
            self._open = pa.ipc.new_stream(str(self.shards[-1]), _SCHEMA)
        columns = [[getattr(example, name) for example in self._batch] for name in _SCHEMA.names]
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, _SCHEMA, strict=True)]
        self._open.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
        self._shard_tokens += self._batch_tokens
        self._batch, self._batch_tokens = [], 0
        if self._shard_tokens >= SHARD_TOKENS:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open, self._shard_tokens = None, 0
