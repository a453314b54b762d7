"""Rows without a chat template: prompts with their completions, and plain text."""

import json

import pytest

from support.finetune.rows import rows
from tokenyard.finetune.methods.dataset import DatasetReader, DatasetSummary, InvalidDataset

COMPLETION = {"prompt": "2+2=", "completion": "4 — exactly"}
TEXT = {"text": "Once upon a time."}


def summary(*found: object, more: bytes = b"") -> DatasetSummary:
    reader = DatasetReader()
    reader.feed("".join(json.dumps(row) + "\n" for row in found).encode() + more)
    return reader.finish()


def test_both_are_for_supervised_fine_tuning_and_counted_with_their_marks() -> None:
    assert summary(COMPLETION, COMPLETION) == DatasetSummary(2, 2, 2 * (4 + 13 + 2), "supervised")
    assert summary(TEXT) == DatasetSummary(1, 1, 17 + 2, "supervised")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a"}, '"completion" must be text'),
        ({"prompt": "a", "completion": " "}, '"completion" is empty'),
        ({"prompt": "", "completion": "a"}, '"prompt" is empty'),
        ({"prompt": ["a"], "completion": "a"}, '"prompt" must be text'),
        ({**COMPLETION, "weight": 1}, "the row has the unknown field 'weight'"),
        ({"text": 1}, '"text" must be text'),
        ({"text": "a", "title": "b"}, "the row has the unknown field 'title'"),
    ],
)
def test_a_wrong_row_is_named(row: object, said: str) -> None:
    with pytest.raises(InvalidDataset) as refused:
        summary(row)
    assert str(refused.value) == f"line 1: {said}"


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (COMPLETION, "line 2: the row has the unknown field 'messages'"),
        (TEXT, "line 2: the row has the unknown field 'messages'"),
    ],
)
def test_kinds_of_rows_do_not_mix(first: object, said: str) -> None:
    with pytest.raises(InvalidDataset) as refused:
        summary(first, more=rows(1))
    assert str(refused.value) == said
