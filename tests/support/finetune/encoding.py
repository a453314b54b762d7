"""A few rows, encoded into memory as training would encode them onto its disk."""

from collections.abc import Iterable
from typing import Any

from tokenyard.core.datasets.text_rows import TrainingRow
from tokenyard_deployments.training.examples import Example, encoded


def encode(rows: Iterable[TrainingRow], tokenizer: Any, max_seq_length: int) -> list[Example]:
    return list(encoded(rows, tokenizer, max_seq_length))


def count_tokens(examples: Iterable[Example]) -> int:
    """Return what one epoch adds to `trained_tokens`: every token of every rendered row, as cut."""
    return sum(len(example.input_ids) for example in examples)
