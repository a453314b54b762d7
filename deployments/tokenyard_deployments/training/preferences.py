"""Turns preference rows into tokens: one prompt and two answers, rendered as the chats that they would be."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tokenyard.core.datasets.preference_rows import PreferenceRow
from tokenyard_deployments.training.examples import IGNORED, Example, encode_row
from tokenyard_deployments.training.failures import TrainingFailed


class Pair(msgspec.Struct, frozen=True):
    """The tokens of one row; neither answer is empty."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def tokens(self) -> int:
        """What one pass over the row adds to `trained_tokens`: both conversations, each with its prompt."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def longest(self) -> int:
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


class Pairs(msgspec.Struct, frozen=True):
    """A file's rows; `left_out` counts those of which an answer is cut off whole: there is nothing to compare."""

    pairs: Sequence[Pair]
    left_out: int


def encode_preferences(rows: Iterable[PreferenceRow], tokenizer: Any, max_seq_length: int) -> Pairs:
    """Render and tokenize every row, cut at `max_seq_length`, or raise `TrainingFailed` where nothing can be learnt."""
    found = [_pair(number, row, tokenizer, max_seq_length) for number, row in enumerate(rows, start=1)]
    pairs = [pair for pair in found if pair is not None]
    if not pairs:
        message = f"In no row do both answers begin within the first {max_seq_length} tokens."
        raise TrainingFailed("invalid_training_file", message)
    return Pairs(pairs, len(found) - len(pairs))


def _pair(number: int, row: PreferenceRow, tokenizer: Any, max_seq_length: int) -> Pair | None:
    preferred, other = (encode_row(number, chat, tokenizer, max_seq_length)[0] for chat in row.chats())
    if not (preferred.has_lesson and other.has_lesson):
        return None
    # Where a token spans the prompt's end and the answer's beginning, the prompts of the two differ by it.
    shared = min(_begin(preferred), _begin(other))
    while preferred.input_ids[:shared] != other.input_ids[:shared]:
        shared -= 1
    return Pair(preferred.input_ids[:shared], _answer(preferred, shared), _answer(other, shared))


def _begin(example: Example) -> int:
    return next(index for index, label in enumerate(example.labels) if label != IGNORED)


def _answer(example: Example, begin: int) -> list[int]:
    """Return the answer with its end-of-turn mark, without what the template puts behind it."""
    end = max(index for index, label in enumerate(example.labels) if label != IGNORED)
    return example.input_ids[begin : end + 1]
