"""Rows on disk: the same rows as in memory, whatever the size of the parts."""

from pathlib import Path

import pytest

pytest.importorskip("datasets")
from tokenyard_deployments.training.data import shards
from tokenyard_deployments.training.data.shards import store
from tokenyard_deployments.training.examples import IGNORED, Example

EXAMPLES = [Example(list(range(n)), [IGNORED] * (n - 1) + [n] if n > 1 else [n], n % 3) for n in range(1, 40)]


@pytest.mark.parametrize(("batch", "shard"), [(1, 1), (100, 300), (10**6, 10**6)])
def test_what_is_read_is_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, shard: int
) -> None:
    monkeypatch.setattr(shards, "BATCH_TOKENS", batch)
    monkeypatch.setattr(shards, "SHARD_TOKENS", shard)
    stored = store(iter(EXAMPLES), tmp_path / "rows")
    assert list(stored) == EXAMPLES
    assert [stored[number] for number in range(len(stored))] == stored[:] == EXAMPLES
    assert (stored.tokens, stored.longest, stored.without_lesson) == (sum(range(1, 40)), 39, 1)
    assert stored.dataset.column_names == ["input_ids", "labels"]
    assert stored.dataset[7]["labels"] == EXAMPLES[7].labels
    assert len(list((tmp_path / "rows").glob("*.arrow"))) == (39 if shard == 1 else 3 if shard == 300 else 1)
