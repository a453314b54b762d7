"""What the scripts that build a recipe's rows share: files of rows, always the same for the same seed."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

Json = dict[str, object]
_RECIPES = Path(__file__).parents[2] / "deployments" / "recipes"


class FilePart(Protocol):
    """What one file is made of."""

    @property
    def file(self) -> str: ...

    @property
    def rows(self) -> int: ...


P = TypeVar("P", bound=FilePart)
A = TypeVar("A")
Lesson = Callable[[P, random.Random], tuple[str, A]]
"""Makes one lesson of a part by chance: what the user says, and the answer."""
Row = Callable[[str, A], Json]
"""Makes of a lesson the row of a training file."""


def files_of(parts: Sequence[P], lesson: Lesson[P, A], row: Row[A], *, seed: int) -> dict[str, str]:
    """Return the text of each part's file, without a message twice."""
    return {part.file: text_of(part, lesson, row, seed=seed) for part in parts}


def text_of(part: P, lesson: Lesson[P, A], row: Row[A], *, seed: int) -> str:
    """Return the text of one part's file."""
    chance = random.Random(f"{seed} {part.file}")  # noqa: S311
    answers: dict[str, A] = {}
    while len(answers) < part.rows:
        message, answer = lesson(part, chance)
        answers[message] = answer
    rows = (row(message, answer) for message, answer in answers.items())
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows)


def chat(system: str) -> Row[str]:
    """Return what makes a chat of a message and its answer."""

    def row(message: str, answer: str) -> Json:
        said = (("system", system), ("user", message), ("assistant", answer))
        return {"messages": [{"role": role, "content": content} for role, content in said]}

    return row


def write_files(recipe: str, texts: Mapping[str, str]) -> None:
    """Write the files of a recipe, given by their names."""
    for name, text in texts.items():
        (_RECIPES / recipe / name).write_text(text)
