"""Turns chat rows into tokens and says which of them are learnt: those of assistant messages of weight 1."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import fsspec
import msgspec

from tokenyard_deployments.training.failures import TrainingFailed

IGNORED = -100  # the label of a token that is not learnt


class Example(msgspec.Struct, frozen=True):
    """One row. `labels` is `input_ids` where the token is learnt, else IGNORED."""

    input_ids: list[int]
    labels: list[int]

    @property
    def has_lesson(self) -> bool:
        """Tell whether anything is learnt: the first token never is, as nothing predicts it."""
        return any(label != IGNORED for label in self.labels[1:])


def read_rows(url: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file that was checked when uploaded, or raise `TrainingFailed` where it is gone."""
    try:
        with fsspec.open(url, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _row(number, line)
    except FileNotFoundError:
        raise TrainingFailed("file_not_found", "The training or validation file does not exist any more.") from None


def encode(rows: Iterable[dict[str, Any]], tokenizer: Any, max_seq_length: int) -> list[Example]:
    """Render and tokenize every row, cut at `max_seq_length`, or raise `TrainingFailed` where nothing can be learnt."""
    examples = []
    for number, row in enumerate(rows, start=1):
        try:
            examples.append(_example(row, tokenizer, max_seq_length))
        except _UnusableRow as error:
            raise TrainingFailed("invalid_training_file", f"line {number}: {error}") from None
    if not any(example.has_lesson for example in examples):
        message = f"In no row is there anything to learn within the first {max_seq_length} tokens."
        raise TrainingFailed("invalid_training_file", message)
    return examples


def count_tokens(examples: Sequence[Example]) -> int:
    """Return what one epoch adds to `trained_tokens`: every token of every rendered row, as cut."""
    return sum(len(example.input_ids) for example in examples)


class _UnusableRow(ValueError):
    """What is wrong with a row, as a sentence."""


def _row(number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise TrainingFailed("invalid_training_file", f"line {number}: not JSON") from None
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise TrainingFailed("invalid_training_file", f'line {number}: must be an object with "messages"')
    return row


def _example(row: dict[str, Any], tokenizer: Any, max_seq_length: int) -> Example:
    text, spans = _render(row, tokenizer)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"][:max_seq_length]
    offsets: list[tuple[int, int]] = encoded["offset_mapping"][:max_seq_length]
    labels = [
        token if any(start <= begin and end <= stop for start, stop in spans) and end > begin else IGNORED
        for token, (begin, end) in zip(ids, offsets, strict=True)
    ]
    return Example(ids, labels)


def _render(row: dict[str, Any], tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """Return the whole conversation and where in it the learnt text stands, end-of-turn mark included."""
    messages = [_without_weight(message) for message in row["messages"]]
    tools = row.get("tools") or None
    text = _template(tokenizer, messages, tools)
    _check_shown(text, row)
    spans = []
    for index, message in enumerate(row["messages"]):
        if message["role"] != "assistant" or message.get("weight", 1) == 0:
            continue
        if index == 0:
            raise _UnusableRow("the first message must not be from the assistant")
        before = _template(tokenizer, messages[:index], tools, opened=True)
        upto = _template(tokenizer, messages[: index + 1], tools)
        if not (text.startswith(upto.rstrip()) and upto.startswith(before)):
            raise _UnusableRow("this model's chat template changes earlier turns, so only a last answer can be learnt")
        spans.append((len(before), len(upto.rstrip())))
    return text, spans


def _template(tokenizer: Any, messages: list[dict[str, Any]], tools: Any, *, opened: bool = False) -> str:
    try:
        text: str = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=opened)
    except Exception:  # a template is a program of its own, and raises what it likes
        raise _UnusableRow("this model's chat template cannot show these messages") from None
    return text


def _check_shown(text: str, row: dict[str, Any]) -> None:
    """Refuse what the template silently leaves out."""
    tools = [tool.get("function", tool).get("name") for tool in row.get("tools") or ()]
    calls = [
        call.get("function", {}).get("name") for message in row["messages"] for call in message.get("tool_calls") or ()
    ]
    if any(isinstance(name, str) and name not in text for name in (*tools, *calls)):
        raise _UnusableRow("this model's chat template does not show tools")


def _without_weight(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "weight"}
