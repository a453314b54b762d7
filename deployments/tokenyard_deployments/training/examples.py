"""Turns rows into tokens and says which of them are learnt: of chats, those of assistant messages of weight 1."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec
import msgspec

from tokenyard.core.chat_rows import ChatRow, CompletionRow, TextRow, TrainingRow
from tokenyard_deployments.training.chat import Json, served_messages, served_tools
from tokenyard_deployments.training.failures import TrainingFailed

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KINDS: Mapping[str, type[TrainingRow]] = {"prompt": CompletionRow, "text": TextRow}
IGNORED = -100  # the label of a token that is not learnt


class Example(msgspec.Struct, frozen=True):
    """One row. `labels` is `input_ids` where the token is learnt, else IGNORED."""

    input_ids: list[int]
    labels: list[int]

    @property
    def has_lesson(self) -> bool:
        """Tell whether anything is learnt: the first token never is, as nothing predicts it."""
        return any(label != IGNORED for label in self.labels[1:])


def read_rows(url: str) -> Iterator[TrainingRow]:
    """Yield the rows of a JSONL file that was checked when uploaded, or raise `TrainingFailed` where it is gone."""
    try:
        with fsspec.open(url, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _row(number, line)
    except FileNotFoundError:
        raise TrainingFailed("file_not_found", "The training or validation file does not exist any more.") from None


def encode(rows: Iterable[TrainingRow], tokenizer: Any, max_seq_length: int) -> list[Example]:
    """Render and tokenize every row, or raise `TrainingFailed` where nothing can be learnt.

    A row is cut at `max_seq_length`; plain text that is longer becomes several examples.
    """
    examples: list[Example] = []
    for number, row in enumerate(rows, start=1):
        match row:
            case ChatRow():
                examples.append(encode_row(number, row, tokenizer, max_seq_length))
            case CompletionRow():
                examples.append(_completion(row, tokenizer, max_seq_length))
            case TextRow():
                examples += _parts(row, tokenizer, max_seq_length)
    if not any(example.has_lesson for example in examples):
        message = f"In no row is there anything to learn within the first {max_seq_length} tokens."
        raise TrainingFailed("invalid_training_file", message)
    return examples


def encode_row(number: int, row: ChatRow, tokenizer: Any, max_seq_length: int) -> Example:
    """Render and tokenize line `number`, or raise `TrainingFailed` where the template cannot show it."""
    try:
        return _example(row, tokenizer, max_seq_length)
    except _UnusableRow as error:
        raise TrainingFailed("invalid_training_file", f"line {number}: {error}") from None


def count_tokens(examples: Sequence[Example]) -> int:
    """Return what one epoch adds to `trained_tokens`: every token of every rendered row, as cut."""
    return sum(len(example.input_ids) for example in examples)


class _UnusableRow(ValueError):
    """What is wrong with a row, as a sentence."""


def _row(number: int, line: bytes) -> TrainingRow:
    try:
        fields = _FIELDS.decode(line)
        kind: type[TrainingRow] = next((kind for field, kind in _KINDS.items() if field in fields), ChatRow)
        row: TrainingRow = msgspec.json.decode(line, type=kind)
        return row
    except (msgspec.MsgspecError, RecursionError) as error:
        raise TrainingFailed("invalid_training_file", f"line {number}: {error}") from None


def _completion(row: CompletionRow, tokenizer: Any, max_seq_length: int) -> Example:
    """Join the tokens that serving makes of the prompt with those of its completion and the end of the text."""
    prompt: list[int] = tokenizer(row.prompt)["input_ids"]
    answer: list[int] = tokenizer(row.completion, add_special_tokens=False)["input_ids"] + _end(tokenizer)
    ids, labels = prompt + answer, [IGNORED] * len(prompt) + answer
    return Example(ids[:max_seq_length], labels[:max_seq_length])


def _parts(row: TextRow, tokenizer: Any, max_seq_length: int) -> Iterator[Example]:
    ids: list[int] = tokenizer(row.text)["input_ids"] + _end(tokenizer)
    for begin in range(0, len(ids), max_seq_length):
        part = ids[begin : begin + max_seq_length]
        yield Example(part, part)


def _end(tokenizer: Any) -> list[int]:
    """Return the mark of a text's end, where the model has one."""
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _example(row: ChatRow, tokenizer: Any, max_seq_length: int) -> Example:
    text, spans = _render(row, tokenizer)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"][:max_seq_length]
    offsets: list[tuple[int, int]] = encoded["offset_mapping"][:max_seq_length]
    labels = [
        token if any(start <= begin and end <= stop for start, stop in spans) and end > begin else IGNORED
        for token, (begin, end) in zip(ids, offsets, strict=True)
    ]
    return Example(ids, labels)


def _render(row: ChatRow, tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """Return the whole conversation and where in it the learnt text stands, end-of-turn mark included."""
    template = _Template(tokenizer, row)
    text = template.rendered(len(row.messages))
    _check_shown(text, row)
    spans = []
    for index, message in enumerate(row.messages):
        if message.role != "assistant" or message.weight == 0:
            continue
        if index == 0:
            raise _UnusableRow("the first message must not be from the assistant")
        before = template.rendered(index, opened=True)
        upto = template.rendered(index + 1)
        if not (text.startswith(upto.rstrip()) and upto.startswith(before)):
            raise _UnusableRow("this model's chat template changes earlier turns, so only a last answer can be learnt")
        spans.append((len(before), len(upto.rstrip())))
    return text, spans


class _Template:
    """A row, ready for the chat template."""

    def __init__(self, tokenizer: Any, row: ChatRow) -> None:
        self._tokenizer = tokenizer
        self._tools = served_tools(row.tools)
        with _showing():
            self._template: str = tokenizer.get_chat_template(tools=self._tools)
            self._messages: list[Json] = served_messages(row.messages, self._template)

    def rendered(self, count: int, *, opened: bool = False) -> str:
        """Return the first `count` messages as text; `opened` adds what the next answer follows."""
        with _showing():
            text: str = self._tokenizer.apply_chat_template(
                self._messages[:count],
                tools=self._tools,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=opened,
            )
        return text


@contextmanager
def _showing() -> Iterator[None]:
    try:
        yield
    except Exception:  # a template is a program of its own, and raises what it likes
        raise _UnusableRow("this model's chat template cannot show these messages") from None


def _check_shown(text: str, row: ChatRow) -> None:
    """Refuse what the template silently leaves out. A function's name may also stand in what somebody says."""
    calls = Counter(call.function.name for message in row.messages for call in message.tool_calls or ())
    said = "\n".join(message.content or "" for message in row.messages)
    for name in {*calls, *(tool.function.name for tool in row.tools or ())}:
        if text.count(name) - said.count(name) < max(1, calls[name]):
            raise _UnusableRow("this model's chat template does not show tools")
