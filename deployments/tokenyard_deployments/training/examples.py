"""Turns rows into tokens and says which of them are learnt: of chats, those of assistant messages of weight 1."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import fsspec
import msgspec

from tokenyard.core.chat_rows import ChatRow, RowProblem
from tokenyard.core.datasets.lines import Line, LineProblem, LineReader
from tokenyard.core.datasets.text_rows import CompletionRow, TextRow, TrainingRow, check_training_row
from tokenyard_deployments.training.chat import Json, served_messages, served_tools
from tokenyard_deployments.training.failures import TrainingFailed

IGNORED = -100  # the label of a token that is not learnt
_CHUNK_BYTES = 1 << 20

Row = TypeVar("Row")


class Example(msgspec.Struct, frozen=True):
    """One row. `labels` is `input_ids` where the token is learnt, else IGNORED; `cut` tokens did not fit."""

    input_ids: list[int]
    labels: list[int]
    cut: int = 0

    @property
    def has_lesson(self) -> bool:
        """Tell whether anything is learnt: the first token never is, as nothing predicts it."""
        return any(label != IGNORED for label in self.labels[1:])


def read_lines(url: str) -> Iterator[Line | LineProblem]:
    """Yield the lines of a JSONL file, or raise `TrainingFailed` where it is gone."""
    lines = LineReader()
    try:
        with fsspec.open(url, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield from lines.feed(chunk)
    except FileNotFoundError:
        raise TrainingFailed("file_not_found", "The training or validation file does not exist any more.") from None
    yield from lines.finish()


def read_rows(url: str) -> Iterator[TrainingRow]:
    """Yield the rows of supervised fine-tuning, as `checked_rows` does."""
    return checked_rows(url, check_training_row)


def checked_rows(url: str, check: Callable[[object], Row]) -> Iterator[Row]:
    """Yield the rows of a file that was checked before; one that breaks a rule raises `TrainingFailed`."""
    for line in read_lines(url):
        if isinstance(line, LineProblem):
            raise TrainingFailed("invalid_training_file", str(line))
        try:
            yield check(line.row)
        except RowProblem as problem:
            raise TrainingFailed("invalid_training_file", f"line {line.number}: {problem}") from None


def encoded(rows: Iterable[TrainingRow], tokenizer: Any, max_seq_length: int) -> Iterator[Example]:
    """Render and tokenize row by row, cut at `max_seq_length`; what cannot be learnt raises `TrainingFailed`."""
    has_lesson = False
    for number, row in enumerate(rows, start=1):
        for example in encode_row(number, row, tokenizer, max_seq_length):
            has_lesson = has_lesson or example.has_lesson
            yield example
    if not has_lesson:
        raise TrainingFailed("invalid_training_file", nothing_to_learn(max_seq_length))


def encode_row(number: int, row: TrainingRow, tokenizer: Any, max_seq_length: int) -> Sequence[Example]:
    """Render and tokenize line `number`, or raise `TrainingFailed` where the template cannot show it."""
    try:
        return examples_of(row, tokenizer, max_seq_length)
    except RowProblem as problem:
        raise TrainingFailed("invalid_training_file", f"line {number}: {problem}") from None


def nothing_to_learn(max_seq_length: int) -> str:
    return f"In no row is there anything to learn within the first {max_seq_length} tokens."


def examples_of(row: TrainingRow, tokenizer: Any, max_seq_length: int) -> Sequence[Example]:
    """Return a row's tokens: one example, or of text that is longer than one may be, several.

    A chat that this model's template cannot show raises `RowProblem`.
    """
    match row:
        case CompletionRow():
            return (_completion(row, tokenizer, max_seq_length),)
        case TextRow():
            return tuple(_parts(row, tokenizer, max_seq_length))
    return (example_of(row, tokenizer, max_seq_length),)


def _completion(row: CompletionRow, tokenizer: Any, max_seq_length: int) -> Example:
    """Join the tokens that serving makes of the prompt with those of its completion and the end of the text."""
    prompt: list[int] = tokenizer(row.prompt)["input_ids"]
    answer: list[int] = tokenizer(row.completion, add_special_tokens=False)["input_ids"] + _end(tokenizer)
    ids, labels = prompt + answer, [IGNORED] * len(prompt) + answer
    return Example(ids[:max_seq_length], labels[:max_seq_length], max(0, len(ids) - max_seq_length))


def _parts(row: TextRow, tokenizer: Any, max_seq_length: int) -> Iterator[Example]:
    ids: list[int] = tokenizer(row.text)["input_ids"] + _end(tokenizer)
    for begin in range(0, len(ids), max_seq_length):
        part = ids[begin : begin + max_seq_length]
        yield Example(part, part)


def _end(tokenizer: Any) -> list[int]:
    """Return the mark of a text's end, where the model has one."""
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def example_of(row: ChatRow, tokenizer: Any, max_seq_length: int) -> Example:
    """Render a row as serving does, and tokenize it; one that this model's template cannot show raises `RowProblem`."""
    template = _Template(tokenizer, row)
    text = template.rendered(len(row.messages))
    _check_shown(text, row)
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = tokens["input_ids"][:max_seq_length]
    offsets: list[tuple[int, int]] = tokens["offset_mapping"][:max_seq_length]
    end = max((stop for _, stop in offsets), default=0)
    spans = list(_learnt_spans(template, text, row, end))
    return Example(ids, _labels(ids, offsets, spans), len(tokens["input_ids"]) - len(ids))


def prompt_tokens(row: ChatRow, tokenizer: Any) -> list[int]:
    """Return what a model is given that is to answer a chat; one that its template cannot show raises `RowProblem`."""
    text = _Template(tokenizer, row).rendered(len(row.messages), opened=True)
    _check_shown(text, row)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _labels(ids: Sequence[int], offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """Both are in the order of the text, so that one walk is enough."""
    labels, place = [], 0
    for token, (begin, end) in zip(ids, offsets, strict=True):
        while place < len(spans) and spans[place][1] <= begin:
            place += 1
        inside = place < len(spans) and spans[place][0] <= begin < end <= spans[place][1]
        labels.append(token if inside else IGNORED)
    return labels


def _learnt_spans(template: "_Template", text: str, row: ChatRow, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the learnt text stands before `end`, end-of-turn marks included.

    What is cut is not rendered turn by turn, so that a row of very many turns takes no longer than what is kept of it.
    """
    for index, message in enumerate(row.messages):
        if message.role != "assistant" or message.weight == 0:
            continue
        before = template.rendered(index, opened=True)
        if len(before) >= end:
            return
        upto = template.rendered(index + 1)
        if not (text.startswith(upto.rstrip()) and upto.startswith(before)):
            raise RowProblem("this model's chat template changes earlier turns, so only a last answer can be learnt")
        yield len(before), len(upto.rstrip())


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
        raise RowProblem("this model's chat template cannot show these messages") from None


def _check_shown(text: str, row: ChatRow) -> None:
    """Refuse what the template silently leaves out. A function's name may also stand in what somebody says."""
    calls = Counter(call.function.name for message in row.messages for call in message.tool_calls or ())
    said = "\n".join(message.content or "" for message in row.messages)
    for name in {*calls, *(tool.function.name for tool in row.tools or ())}:
        if text.count(name) - said.count(name) < max(1, calls[name]):
            raise RowProblem("this model's chat template does not show tools")
