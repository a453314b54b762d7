"""What graders ask of models, as files carry it between who grades and who may ask."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Self

import msgspec

from tokenyard.core.evaluation.questions import Answered, NotAnswered
from tokenyard.core.graders.grading import ModelQuestion


class QuestionReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model answered; None: it did not, for the reason `why_not`."""

    answered: Answered | None = None
    why_not: str = ""

    @classmethod
    def of(cls, said: Answered | NotAnswered) -> Self:
        return cls(said) if isinstance(said, Answered) else cls(why_not=str(said))

    @property
    def said(self) -> Answered | NotAnswered:
        return self.answered or NotAnswered(self.why_not)


Questions = Mapping[str, ModelQuestion]
"""By `question_id`."""


def question_id(question: ModelQuestion) -> str:
    """Return the same for the same question, whoever asks it and however often."""
    return hashlib.sha256(msgspec.json.encode(question)).hexdigest()[:32]


def questions_name(ids: Iterable[str]) -> str:
    """Return the name of the file of these questions, and of that of their answers."""
    return f"{hashlib.sha256(' '.join(sorted(ids)).encode()).hexdigest()[:32]}.json"
