"""What the scripts that build a recipe's rows share: files of chats, always the same for the same seed."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class FilePart(Protocol):
    """What one file is made of."""

    @property
    def file(self) -> str: ...

    @property
    def rows(self) -> int: ...


P = TypeVar("P", bound=FilePart)
Row = Callable[[P, random.Random], tuple[str, str]]
"""Makes one row of a part by chance: what the user says, and the answer."""


def files_of(parts: Sequence[P], row: Row[P], *, system: str, seed: int) -> dict[str, str]:
    """Return the text of each part's file, without a message twice."""
    return {part.file: _text(part, row, system, random.Random(f"{seed} {part.file}")) for part in parts}  # noqa: S311


def _text(part: P, row: Row[P], system: str, chance: random.Random) -> str:
    answers: dict[str, str] = {}
    while len(answers) < part.rows:
        message, answer = row(part, chance)
        answers[message] = answer
    return "".join(_line(system, message, answer) for message, answer in answers.items())


def _line(system: str, message: str, answer: str) -> str:
    said = (("system", system), ("user", message), ("assistant", answer))
    row = {"messages": [{"role": role, "content": content} for role, content in said]}
    return json.dumps(row, ensure_ascii=False) + "\n"
