"""Grades an answer: what models are to be asked for it, and once they have answered, what it is worth."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec
from rapidfuzz import fuzz

from tokenyard.core.evaluation.answer_metrics import bleu, rouge_l, rouge_n
from tokenyard.core.evaluation.questions import CHAT, Answered, NotAnswered, Question
from tokenyard.core.graders.formula import Formula
from tokenyard.core.graders.shapes import (
    Grader,
    LabelModelGrader,
    ModelGrader,
    MultiGrader,
    ScoreModelGrader,
    SingleGrader,
    StringCheckGrader,
    TextSimilarityGrader,
    single_graders,
)
from tokenyard.core.graders.templates import (
    MAX_TEXT,
    FilledText,
    GradedAnswer,
    Json,
    Template,
    UnknownReference,
    UnreadableSample,
)

SCORE_TOKENS = 128  # of a model's answer, where the grader says nothing else
MAX_COMPARED = 20_000  # characters of texts whose similarity is measured, which takes time by their product
_SCORE, _LABEL = "result", "label"

Answers = Mapping[str, Answered | NotAnswered]
"""What models said to the questions of a grader, by the names of `model_questions`."""


class GradingError(StrEnum):
    """What went wrong with an answer, under OpenAI's names. It is worth the least then."""

    SAMPLE_PARSE = "sample_parse_error"
    TRUNCATED = "truncated_observation_error"  # graded all the same
    INVALID_VARIABLE = "invalid_variable_error"
    MODEL_PARSE = "model_grader_parse_error"
    MODEL_SERVER = "model_grader_server_error"
    OTHER = "other_error"


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer is worth. `rewards` are those of a `multi`'s graders; `details` say what a model's server did."""

    reward: float
    rewards: Mapping[str, float] = {}
    errors: frozenset[GradingError] = frozenset()
    details: str | None = None


class _Graded(msgspec.Struct):
    """What is gathered on the way."""

    errors: set[GradingError]
    details: str | None = None


class ModelQuestion(NamedTuple):
    """What a model is asked for a grade."""

    model: str
    question: Question
    max_tokens: int


def model_questions(grader: Grader, answer: GradedAnswer) -> dict[str, ModelQuestion]:
    """Return by the name of its grader what each model is to be asked.

    What cannot be asked, as something is missing that it refers to, is left out.
    """
    found = {}
    for name, one in single_graders(grader).items():
        if isinstance(one, ModelGrader):
            try:
                asked = _asked(one, answer)
            except (UnknownReference, UnreadableSample):
                continue
            found[name] = ModelQuestion(one.model, Question(CHAT, asked, ""), _answer_tokens(one))
    return found


def grade(grader: Grader, answer: GradedAnswer, answers: Answers | None = None) -> Grade:
    """Return what an answer is worth; `answers` are those of the models to `model_questions`."""
    seen = _Graded(set())
    rewards = {
        name: _reward(one, answer, (answers or {}).get(name), seen) for name, one in single_graders(grader).items()
    }
    if not isinstance(grader, MultiGrader):
        return Grade(reward=rewards[grader.name], errors=frozenset(seen.errors), details=seen.details)
    try:
        reward = Formula(grader.calculate_output, grader.graders).value(rewards)
    except ArithmeticError:
        reward = 0.0
        seen.errors.add(GradingError.OTHER)
    return Grade(reward=reward, rewards=rewards, errors=frozenset(seen.errors), details=seen.details)


def _reward(grader: SingleGrader, answer: GradedAnswer, said: Answered | NotAnswered | None, seen: _Graded) -> float:
    least = grader.range[0] if isinstance(grader, ScoreModelGrader) else 0.0
    try:
        if isinstance(grader, ModelGrader):
            for _, text in _filled_messages(grader, answer):
                _note_cut(text, seen)
            return least if said is None else _said(grader, said, least, seen)
        most = MAX_COMPARED if isinstance(grader, TextSimilarityGrader) else MAX_TEXT
        given, reference = (Template(text).filled(answer, most) for text in (grader.input, grader.reference))
        _note_cut(given, seen)
        _note_cut(reference, seen)
        if isinstance(grader, StringCheckGrader):
            return float(_CHECKS[grader.operation](given.text, reference.text))
        return similarity(grader, given.text, reference.text)
    except UnknownReference:
        seen.errors.add(GradingError.INVALID_VARIABLE)
    except UnreadableSample:
        seen.errors.add(GradingError.SAMPLE_PARSE)
    return least


def _note_cut(text: FilledText, seen: _Graded) -> None:
    if text.cut:
        seen.errors.add(GradingError.TRUNCATED)


_CHECKS: Mapping[str, Callable[[str, str], bool]] = {
    "eq": lambda given, reference: given == reference,
    "ne": lambda given, reference: given != reference,
    "like": lambda given, reference: reference in given,
    "ilike": lambda given, reference: reference.casefold() in given.casefold(),
}


def similarity(grader: TextSimilarityGrader, given: str, reference: str) -> float:
    """Return from 0 to 1 how near two texts are by the grader's metric."""
    match grader.evaluation_metric:
        case "fuzzy_match":
            return fuzz.ratio(given, reference) / 100
        case "bleu":
            return bleu([given], [reference])
        case "rouge_l":
            return rouge_l(given, reference)
    return rouge_n(given, reference, int(grader.evaluation_metric.removeprefix("rouge_")))


def _said(grader: ModelGrader, said: Answered | NotAnswered, least: float, seen: _Graded) -> float:
    """Return what a model's answer to the grader's question comes to."""
    if isinstance(said, NotAnswered):
        seen.errors.add(GradingError.MODEL_SERVER)
        seen.details = str(said)
        return least
    try:
        found = msgspec.json.decode(said.text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        found = {}
    if isinstance(grader, LabelModelGrader):
        if found.get(_LABEL) in grader.labels:
            return float(found[_LABEL] in grader.passing_labels)
    elif isinstance(score := found.get(_SCORE), int | float) and not isinstance(score, bool):
        if grader.range[0] <= score <= grader.range[1]:
            return float(score)
    seen.errors.add(GradingError.MODEL_PARSE)
    return least


def _asked(grader: ModelGrader, answer: GradedAnswer) -> Json:
    """Return the fields of the request by which the model is asked; its answer is held to a schema."""
    texts: dict[int, list[str]] = {}
    for number, text in _filled_messages(grader, answer):
        texts.setdefault(number, []).append(text.text)
    messages = [
        {"role": message.role, "content": "\n".join(texts[number])} for number, message in enumerate(grader.input)
    ]
    name, kind = _wanted(grader)
    schema = {"type": "object", "properties": {name: kind}, "required": [name], "additionalProperties": False}
    held = {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
    return {"messages": messages, "response_format": held, **_sampled(grader)}


def _filled_messages(grader: ModelGrader, answer: GradedAnswer) -> list[tuple[int, FilledText]]:
    found, left = list[tuple[int, FilledText]](), MAX_TEXT
    for number, message in enumerate(grader.input):
        for text in message.texts:
            filled = Template(text).filled(answer, left)
            left -= len(filled.text)
            found.append((number, filled))
    return found


def _wanted(grader: ModelGrader) -> tuple[str, Json]:
    if isinstance(grader, LabelModelGrader):
        return _LABEL, {"type": "string", "enum": grader.labels}
    return _SCORE, {"type": "number"}


def _sampled(grader: ModelGrader) -> Json:
    if isinstance(grader, LabelModelGrader):
        return {}
    sampling = grader.sampling_params
    wanted = {"seed": sampling.seed, "temperature": sampling.temperature, "top_p": sampling.top_p}
    return {name: value for name, value in wanted.items() if value is not None}


def _answer_tokens(grader: ModelGrader) -> int:
    asked = None if isinstance(grader, LabelModelGrader) else grader.sampling_params.max_completions_tokens
    return asked or SCORE_TOKENS
