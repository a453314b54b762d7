"""`evaluation.json`: what is known of a tuned model beside its base, for its tenant to read."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tokenyard.core.chat_rows import Json
from tokenyard.core.evaluation.answer_metrics import AnswerMetrics, answer_metrics
from tokenyard.core.evaluation.general_questions import is_right
from tokenyard.core.evaluation.questions import Answered, Question
from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Job
from tokenyard.finetune.results.leaving import LeftFile

FILENAME = "evaluation.json"


class BothAnswers(NamedTuple):
    """What base and tuned model answered to one question."""

    question: Question
    base: Answered
    tuned: Answered


class Sample(msgspec.Struct, frozen=True):
    """Both answers to one question, side by side; `cut` names the models that had more to say."""

    asked: Json
    expected: str
    base: str
    tuned: str
    cut: list[str]


class RowAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """How both models answered held-out rows, of which `asked` were asked; `reason` says what is missing and why.

    The figures are over the rows that both have answered; where there is none, nothing was made.
    """

    asked: int
    reason: str | None
    base: AnswerMetrics | None
    tuned: AnswerMetrics | None
    samples: list[Sample]


class GeneralAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the `answered` general questions each model got right; `forgotten` only the base did."""

    asked: int
    answered: int
    reason: str | None
    base_right: int
    tuned_right: int
    forgotten: list[Sample]


class Answers(msgspec.Struct, frozen=True):
    """What was asked for of both."""

    rows: RowAnswers | None
    general: GeneralAnswers | None


def row_answers(asked: int, both: Sequence[BothAnswers], reason: str | None) -> RowAnswers:
    """Compare both models' answers to held-out rows with what was expected."""
    expected = [each.question.expected for each in both]
    return RowAnswers(
        asked=asked,
        reason=reason,
        base=answer_metrics([each.base.text for each in both], expected) if both else None,
        tuned=answer_metrics([each.tuned.text for each in both], expected) if both else None,
        samples=[_sample(each) for each in both],
    )


def general_answers(asked: int, both: Sequence[BothAnswers], reason: str | None) -> GeneralAnswers:
    """Count what each model knows of the general questions."""
    base, tuned = (
        [is_right(answer.text, each.question.expected) for each, answer in answers]
        for answers in ([(each, each.base) for each in both], [(each, each.tuned) for each in both])
    )
    lost = [each for each, before, now in zip(both, base, tuned, strict=True) if before and not now]
    return GeneralAnswers(
        asked=asked,
        answered=len(both),
        reason=reason,
        base_right=sum(base),
        tuned_right=sum(tuned),
        forgotten=[_sample(each) for each in lost],
    )


def evaluation_file(job: Job, answers: Answers | None = None) -> LeftFile:
    """Return the file, written to be read. `held_out` are means over the learnt tokens of the validation file."""
    found = {
        "object": "fine_tuning.job.evaluation",
        "fine_tuning_job_id": job.id,
        "model": job.model,
        "fine_tuned_model": str(job.published_model) if job.published_model is not None else None,
        "held_out": job.held_out,
        "answers": None if answers is None else answers.rows,
        "general": None if answers is None else answers.general,
    }
    content = msgspec.json.format(msgspec.json.encode(found), indent=2)
    return LeftFile(FileId(f"file-{job.id.removeprefix('ftjob-')}-evaluation"), FILENAME, content)


def _sample(both: BothAnswers) -> Sample:
    cut = [name for name, answer in (("base", both.base), ("tuned", both.tuned)) if answer.cut]
    return Sample(both.question.asked, both.question.expected, both.base.text, both.tuned.text, cut)
