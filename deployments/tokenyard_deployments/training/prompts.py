"""Turns rows that are to be answered into the tokens that a model is given, as serving renders them."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tokenyard.core.chat_rows import ChatRow, RowProblem
from tokenyard.core.datasets.reinforcement_rows import ReinforcementRow
from tokenyard.core.training import Hyperparameters
from tokenyard_deployments.training.examples import prompt_tokens
from tokenyard_deployments.training.failures import TrainingFailed


class EncodedPrompt(msgspec.Struct, frozen=True):
    """One row; `item` is what its grader sees of it."""

    ids: list[int]
    item: dict[str, object]


class EncodedPrompts(msgspec.Struct, frozen=True):
    """A file's rows; `left_out` counts those after which no answer of full length fits into the model's context."""

    prompts: Sequence[EncodedPrompt]
    left_out: int

    @property
    def longest(self) -> int:
        return max(len(prompt.ids) for prompt in self.prompts)


def encode_prompts(
    rows: Iterable[ReinforcementRow], tokenizer: Any, max_seq_length: int, wanted: Hyperparameters
) -> EncodedPrompts:
    """Render and tokenize every row, or raise `TrainingFailed` where there is none that can be answered."""
    found = [_prompt(number, row, tokenizer) for number, row in enumerate(rows, start=1)]
    prompts = [prompt for prompt in found if leaves_room(len(prompt.ids), max_seq_length, wanted)]
    if not prompts:
        message = f"After no row is there room for an answer within {max_seq_length} tokens."
        raise TrainingFailed("invalid_training_file", message)
    return EncodedPrompts(prompts, len(found) - len(prompts))


def leaves_room(prompt_tokens: int, max_seq_length: int, wanted: Hyperparameters) -> bool:
    """Tell whether an answer of full length fits behind a prompt."""
    return prompt_tokens + (wanted.max_completion_length or 0) <= max_seq_length


def _prompt(number: int, row: ReinforcementRow, tokenizer: Any) -> EncodedPrompt:
    try:
        return EncodedPrompt(prompt_tokens(ChatRow(row.messages, row.tools), tokenizer), row.item)
    except RowProblem as problem:
        raise TrainingFailed("invalid_training_file", f"line {number}: {problem}") from None
