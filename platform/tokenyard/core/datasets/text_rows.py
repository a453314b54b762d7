"""Rows without a chat template: OpenAI's older prompts with completions, and plain text."""

import msgspec

from tokenyard.core.chat_rows import ChatRow, RowMessage, RowProblem, check_chat_row

_QUOTED_CHARACTERS = 40


class CompletionRow(msgspec.Struct, frozen=True):
    """A text and how it goes on; only what goes on is learnt."""

    prompt: str
    completion: str

    def as_chat(self) -> ChatRow:
        return ChatRow([RowMessage("user", self.prompt), RowMessage("assistant", self.completion)])


class TextRow(msgspec.Struct, frozen=True):
    """Plain text, all of which is learnt."""

    text: str

    def as_chat(self) -> ChatRow:
        return ChatRow([RowMessage("assistant", self.text)])


TrainingRow = ChatRow | CompletionRow | TextRow
"""What supervised fine-tuning learns from."""


def check_training_row(row: object) -> TrainingRow:
    """Return a row of any of these kinds, typed; one that breaks a rule raises `RowProblem`."""
    fields = row if isinstance(row, dict) else {}
    if "prompt" in fields:
        return check_completion_row(row)
    return check_text_row(row) if "text" in fields else check_chat_row(row)


def check_completion_row(row: object) -> CompletionRow:
    """Return the row, typed; one that breaks a rule raises `RowProblem`."""
    return CompletionRow(*_texts(row, ("prompt", "completion")))


def check_text_row(row: object) -> TextRow:
    """Return the row, typed; one that breaks a rule raises `RowProblem`."""
    return TextRow(*_texts(row, ("text",)))


def _texts(row: object, names: tuple[str, ...]) -> list[str]:
    """Return the fields of a row that has these and no others, each a text with something in it."""
    wanted = " and ".join(f'"{name}"' for name in names)
    if not isinstance(row, dict):
        raise RowProblem(f"must be a JSON object with {wanted}")
    unknown = sorted(set(row) - set(names))
    if unknown:
        raise RowProblem(f"the row has the unknown field {unknown[0][:_QUOTED_CHARACTERS]!r}")
    return [_text(row, name) for name in names]


def _text(row: dict[str, object], name: str) -> str:
    text = row.get(name)
    if not isinstance(text, str):
        raise RowProblem(f'"{name}" must be text')
    if not text.strip():
        raise RowProblem(f'"{name}" is empty')
    return text
