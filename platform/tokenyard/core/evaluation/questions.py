"""Held-out rows as what a model is asked, and what it was expected to answer."""

import msgspec

from tokenyard.core.chat_rows import ChatRow, Json, RowMessage
from tokenyard.core.datasets.preference_rows import check_preference_row
from tokenyard.core.datasets.text_rows import CompletionRow, TextRow, check_training_row
from tokenyard.core.usage import TokenUsage

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


class Question(msgspec.Struct, frozen=True):
    """`asked` are the fields of a request to `path` that hold the question: its messages with tools, or its prompt."""

    path: str
    asked: Json
    expected: str


class Answered(msgspec.Struct, frozen=True):
    """What a model answered, and why it ended, in OpenAI's words."""

    text: str
    finish_reason: str = "stop"
    tokens: TokenUsage = TokenUsage(0, 0)

    @property
    def cut(self) -> bool:
        """Whether it had more to say than was asked for."""
        return self.finish_reason == "length"


class NotAnswered(Exception):
    """A model gave no answer; the message says why, in words for the tenant. `passing`: asked later, it might."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


def question_of(row: object) -> Question | None:
    """Return what a row of a training file asks; None where it expects no answer in text.

    A row that breaks a rule raises `RowProblem`.
    """
    if isinstance(row, dict) and "input" in row:
        return _of_chat(check_preference_row(row).chats()[0])
    checked = check_training_row(row)
    if isinstance(checked, TextRow):
        return None
    if isinstance(checked, CompletionRow):
        return Question(COMPLETION, {"prompt": checked.prompt}, checked.completion)
    return _of_chat(checked)


def plain_question(text: str, expected: str) -> Question:
    """Return a question of one message."""
    return Question(CHAT, {"messages": [{"role": "user", "content": text}]}, expected)


def _of_chat(row: ChatRow) -> Question | None:
    *before, last = row.messages
    if not before or last.content is None or last.tool_calls:
        return None
    asked: Json = {"messages": [_message(message) for message in before]}
    if row.tools:
        asked["tools"] = [_given(msgspec.to_builtins(tool)) for tool in row.tools]
    return Question(CHAT, asked, last.content)


def _message(message: RowMessage) -> Json:
    fields = _given(msgspec.to_builtins(message))
    fields.pop("weight")  # of training alone
    return fields


def _given(fields: Json) -> Json:
    return {
        name: _given(value) if isinstance(value, dict) else value for name, value in fields.items() if value is not None
    }
