"""Graders as OpenAI's API has them, checked whole: of what `parsed_grader` returns, only an answer can be wrong."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from tokenyard.core.graders.formula import Formula, FormulaProblem
from tokenyard.core.graders.templates import Template, TemplateProblem

MAX_NAME = 128
MAX_MODEL_NAME = 256
MAX_GRADERS = 16
MAX_MESSAGES = 32
MAX_PARTS = 16
MAX_LABELS = 64
MAX_ANSWER_TOKENS = 4096
MAX_GRADER_BYTES = 256 * 1024
_QUOTED_CHARACTERS = 100

SimilarityMetric = (
    Literal["fuzzy_match", "bleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]
    | Literal["cosine", "gleu", "meteor"]
)
NOT_OFFERED: Mapping[str, str] = {
    "cosine": "it needs a model of embeddings",
    "gleu": "no library here computes it",
    "meteor": "it needs a dictionary of synonyms",
}
"""Metrics of OpenAI's, and why they are not here."""


class GraderProblem(ValueError):
    """What is wrong with a grader; `param` is the path to it in the grader."""

    def __init__(self, message: str, param: str = "", *, code: str = "invalid_grader") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class _Shape(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    name: str


class StringCheckGrader(_Shape, frozen=True, tag="string_check"):
    """Worth 1 where it holds, else 0; `like` is whether `reference` stands in `input`, `ilike` whatever its case."""

    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]


class TextSimilarityGrader(_Shape, frozen=True, tag="text_similarity"):
    """Worth from 0 to 1."""

    input: str
    reference: str
    evaluation_metric: SimilarityMetric


class GraderTextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text of a message in parts."""

    type: Literal["input_text", "output_text"]
    text: str


class GraderMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model is asked; each text may have references."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | GraderTextPart | list[str | GraderTextPart]
    type: Literal["message"] = "message"

    @property
    def texts(self) -> list[str]:
        parts = self.content if isinstance(self.content, list) else [self.content]
        return [part if isinstance(part, str) else part.text for part in parts]


class GraderSampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a model's score is drawn: its likeliest one, if nothing else is said."""

    max_completions_tokens: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None


class ScoreModelGrader(_Shape, frozen=True, tag="score_model"):
    """Worth what a served model says, a number within `range`."""

    model: str
    input: list[GraderMessage]
    range: tuple[float, float] = (0.0, 1.0)
    sampling_params: GraderSampling = GraderSampling()


class LabelModelGrader(_Shape, frozen=True, tag="label_model"):
    """Worth 1 where a served model gives a label of `passing_labels`, else 0."""

    model: str
    input: list[GraderMessage]
    labels: list[str]
    passing_labels: list[str]


SingleGrader = StringCheckGrader | TextSimilarityGrader | ScoreModelGrader | LabelModelGrader
ModelGrader = ScoreModelGrader | LabelModelGrader


class MultiGrader(_Shape, frozen=True, tag="multi"):
    """Worth what the formula `calculate_output` makes of its graders, by their names."""

    graders: dict[str, SingleGrader]
    calculate_output: str


Grader = SingleGrader | MultiGrader


def parsed_grader(value: object) -> Grader:
    """Return the grader that a client sent, or raise `GraderProblem`.

    The graders of a `multi` are an object with their names, or as OpenAI's schema has it, a single one with its own.
    """
    named = _named(value)
    _refuse_code(named)
    try:
        grader: Grader = msgspec.convert(named, Grader)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        raise GraderProblem(f"{what[:_QUOTED_CHARACTERS]}.", place.removesuffix("`").removeprefix(".")) from None
    try:
        size = len(msgspec.json.encode(grader))
    except UnicodeEncodeError:
        raise GraderProblem("It holds half a surrogate pair, which JSON cannot carry.") from None
    if size > MAX_GRADER_BYTES:
        raise GraderProblem(f"The grader has more than {MAX_GRADER_BYTES} bytes.")
    _check_name(grader)
    if not isinstance(grader, MultiGrader):
        _check_single(grader, "")
        return grader
    if not 0 < len(grader.graders) <= MAX_GRADERS:
        raise GraderProblem(f"There must be 1 to {MAX_GRADERS} graders.", "graders")
    for name, one in grader.graders.items():
        if not name.isidentifier() or len(name) > MAX_NAME:
            raise GraderProblem("Its name must be one that a formula can hold: letters, digits and _.", "graders")
        _check_single(one, f"graders.{name}.")
    try:
        Formula(grader.calculate_output, grader.graders)
    except FormulaProblem as problem:
        raise GraderProblem(f"The formula {problem}.", "calculate_output") from None
    return grader


def single_graders(grader: Grader) -> Mapping[str, SingleGrader]:
    """Return the graders of a `multi` by their names, or the one there is by its own."""
    return grader.graders if isinstance(grader, MultiGrader) else {grader.name: grader}


def item_paths(grader: Grader) -> set[tuple[str, ...]]:
    """Return what a grader refers to in its items."""
    return {
        path
        for one in single_graders(grader).values()
        for _, text in _templates(one)
        for path in Template(text).item_paths
    }


def reads_sample(grader: Grader) -> bool:
    """Tell whether a grader refers to an answer, and not to its item alone."""
    return any(Template(text).reads_sample for one in single_graders(grader).values() for _, text in _templates(one))


def model_grader_count(grader: Grader) -> int:
    return sum(isinstance(one, ModelGrader) for one in single_graders(grader).values())


def asked_models(grader: Grader) -> set[str]:
    """Return the models that a grader asks."""
    return {one.model for one in single_graders(grader).values() if isinstance(one, ModelGrader)}


def _named(value: object) -> object:
    graders = value.get("graders") if isinstance(value, dict) else None
    if isinstance(value, dict) and isinstance(graders, dict) and isinstance(graders.get("type"), str):
        return {**value, "graders": {str(graders.get("name", "")): graders}}
    return value


def _refuse_code(value: object) -> None:
    if not isinstance(value, dict):
        return
    graders = value.get("graders")
    for place, one in (("type", value), *(graders.items() if isinstance(graders, dict) else ())):
        if isinstance(one, dict) and one.get("type") == "python":
            raise GraderProblem(
                "The grader 'python' is not available: no code of tenants runs here. What it computes can often be "
                "said with 'string_check', 'text_similarity' and a 'multi' over them.",
                "type" if place == "type" else f"graders.{place}.type",
                code="grader_not_available",
            )


def _check_name(grader: Grader) -> None:
    if not 0 < len(grader.name) <= MAX_NAME or "\x00" in grader.name:
        raise GraderProblem(f"The name must have 1 to {MAX_NAME} characters, and none of them is NUL.", "name")


def _check_single(grader: SingleGrader, where: str) -> None:
    for field, text in _templates(grader):
        try:
            Template(text)
        except TemplateProblem as problem:
            raise GraderProblem(f"The template {problem}.", f"{where}{field}") from None
    match grader:
        case TextSimilarityGrader(evaluation_metric=metric) if metric in NOT_OFFERED:
            raise GraderProblem(
                f"The metric '{metric}' is not available: {NOT_OFFERED[metric]}.",
                f"{where}evaluation_metric",
                code="metric_not_available",
            )
        case ScoreModelGrader():
            _check_asked(grader, where)
            _check_score(grader, where)
        case LabelModelGrader():
            _check_asked(grader, where)
            _check_labels(grader, where)


def _check_asked(grader: ModelGrader, where: str) -> None:
    if not 0 < len(grader.model) <= MAX_MODEL_NAME or "\x00" in grader.model:
        raise GraderProblem("The model must be named.", f"{where}model")
    if not 0 < len(grader.input) <= MAX_MESSAGES:
        raise GraderProblem(f"There must be 1 to {MAX_MESSAGES} messages.", f"{where}input")
    for number, message in enumerate(grader.input):
        if not 0 < len(message.texts) <= MAX_PARTS:
            raise GraderProblem(f"A message has 1 to {MAX_PARTS} parts.", f"{where}input[{number}].content")


def _check_score(grader: ScoreModelGrader, where: str) -> None:
    lowest, highest = grader.range
    if not -1e6 <= lowest < highest <= 1e6:
        raise GraderProblem("The range must go from a number to a greater one, within a million.", f"{where}range")
    sampling = grader.sampling_params
    bounds: Sequence[tuple[str, float | None, float, float]] = (
        ("max_completions_tokens", sampling.max_completions_tokens, 1, MAX_ANSWER_TOKENS),
        ("seed", sampling.seed, 0, 2**31 - 1),
        ("temperature", sampling.temperature, 0, 2),
        ("top_p", sampling.top_p, 1e-6, 1),
    )
    for name, value, least, most in bounds:
        if value is not None and not least <= value <= most:
            raise GraderProblem(f"It must be from {least:g} to {most:g}.", f"{where}sampling_params.{name}")
    if sampling.reasoning_effort is not None:
        raise GraderProblem("It cannot be set here.", f"{where}sampling_params.reasoning_effort")


def _check_labels(grader: LabelModelGrader, where: str) -> None:
    if not 0 < len(grader.labels) <= MAX_LABELS or not all(0 < len(one) <= MAX_NAME for one in grader.labels):
        raise GraderProblem(f"There must be 1 to {MAX_LABELS} labels of 1 to {MAX_NAME} characters.", f"{where}labels")
    if not set(grader.passing_labels) <= set(grader.labels):
        raise GraderProblem("Each of them must be one of the labels.", f"{where}passing_labels")


def _templates(grader: SingleGrader) -> Iterator[tuple[str, str]]:
    if isinstance(grader, ModelGrader):
        for number, message in enumerate(grader.input):
            for text in message.texts:
                yield f"input[{number}].content", text
    else:
        yield "input", grader.input
        yield "reference", grader.reference
