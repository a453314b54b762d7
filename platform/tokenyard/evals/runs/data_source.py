"""What a run grades: rows as they are, or what a model answers to them. OpenAI's shapes."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.graders.shapes import MAX_ANSWER_TOKENS, MAX_MESSAGES, MAX_MODEL_NAME, MAX_PARTS, GraderMessage
from tokenyard.core.graders.templates import Template, TemplateProblem, path_of
from tokenyard.core.schemas import SchemaTooLarge, check_schema
from tokenyard.evals.parsing import check_json, refused, shaped
from tokenyard.evals.ports import Json
from tokenyard.web.request_guard import NO_NUL

DEFAULT_ANSWER_TOKENS = 512
WHERE = "data_source"
_NOT_TYPES = {"responses": "ask by 'completions'; responses that are kept are not rows here."}
_NOT_SOURCES = {
    "stored_completions": "stored chat completions are not rows here.",
    "responses": "stored responses are not rows here.",
}
_INT64 = 2**63


class _Shape(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """One of several, by its `type`."""


class GivenRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A row, of a file or of a body; `sample` is the answer where it was made elsewhere."""

    item: Json
    sample: Json | None = None


class GivenRows(_Shape, frozen=True, tag="file_content"):
    content: list[GivenRow]


class RowsOfFile(_Shape, frozen=True, tag="file_id"):
    id: Annotated[str, msgspec.Meta(max_length=96, pattern=NO_NUL)]


class TemplateMessages(_Shape, frozen=True, tag="template"):
    """Messages whose texts refer to the item."""

    template: list[GraderMessage]


class MessagesOfItem(_Shape, frozen=True, tag="item_reference"):
    """Messages that stand in the item, such as `item.input_trajectory`."""

    item_reference: str

    @property
    def path(self) -> tuple[str, ...]:
        """Its names within the item; raises `TemplateProblem` where it is no reference to it."""
        first, *names = path_of(self.item_reference)
        if first != "item":
            raise TemplateProblem("refers to 'sample', which is only there once it was asked for")
        return tuple(names)


class EvalSampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are drawn; as OpenAI documents it, not the likeliest one if nothing is said."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 42
    max_completion_tokens: int = DEFAULT_ANSWER_TOKENS
    response_format: Json | None = None
    reasoning_effort: object = None
    tools: object = None


class JsonlSource(_Shape, frozen=True, tag="jsonl"):
    source: GivenRows | RowsOfFile


class CompletionsSource(_Shape, frozen=True, tag="completions"):
    source: GivenRows | RowsOfFile
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MODEL_NAME, pattern=NO_NUL)]
    input_messages: TemplateMessages | MessagesOfItem
    sampling_params: EvalSampling = EvalSampling()


DataSource = JsonlSource | CompletionsSource


def data_source_of(value: Json) -> DataSource:
    """Return what a client sent, or raise `InvalidRequest`, which names the field."""
    check_json(value, WHERE)
    _refuse(value, _NOT_TYPES, WHERE)
    _refuse(value.get("source"), _NOT_SOURCES, f"{WHERE}.source")
    found: DataSource = shaped(value, DataSource, WHERE)  # type: ignore[arg-type]
    if isinstance(found, CompletionsSource):
        _check_asked(found)
    return found


def sampling_of(data_source: Json) -> EvalSampling:
    """Return how the answers of a checked data source are drawn; where none are asked for, what OpenAI documents."""
    return msgspec.convert(data_source.get("sampling_params", {}), EvalSampling)


def _refuse(value: object, reasons: Mapping[str, str], where: str) -> None:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind in reasons:
        raise refused(f"{where}.type", reasons[kind])


def _check_asked(found: CompletionsSource) -> None:
    messages, where = found.input_messages, f"{WHERE}.input_messages"
    if isinstance(messages, MessagesOfItem):
        try:
            _ = messages.path
        except TemplateProblem as problem:
            raise InvalidRequest(f"It {problem}.", param=f"{where}.item_reference") from None
    else:
        if not 0 < len(messages.template) <= MAX_MESSAGES:
            raise InvalidRequest(f"There must be 1 to {MAX_MESSAGES} messages.", param=f"{where}.template")
        for place, message in enumerate(messages.template):
            if not 0 < len(message.texts) <= MAX_PARTS:
                raise InvalidRequest(
                    f"A message has 1 to {MAX_PARTS} parts.", param=f"{where}.template.{place}.content"
                )
            for text in message.texts:
                _check_template(text, f"{where}.template.{place}.content")
    _check_sampling(found.sampling_params)


def _check_template(source: str, where: str) -> None:
    try:
        template = Template(source)
    except TemplateProblem as problem:
        raise InvalidRequest(f"The template {problem}.", param=where) from None
    if template.reads_sample:
        raise InvalidRequest("It refers to 'sample', which is only there once it was asked for.", param=where)


def _check_sampling(sampling: EvalSampling) -> None:
    where = f"{WHERE}.sampling_params"
    if sampling.tools is not None:
        raise refused(f"{where}.tools", "answers that call tools are not graded here.")
    if sampling.reasoning_effort is not None:
        raise refused(f"{where}.reasoning_effort", "how much a model thinks cannot be chosen here.")
    bounds: Mapping[str, tuple[float, float, float]] = {
        "temperature": (sampling.temperature, 0, 2),
        "top_p": (sampling.top_p, 1e-6, 1),
        "seed": (sampling.seed, -_INT64, _INT64 - 1),
        "max_completion_tokens": (sampling.max_completion_tokens, 1, MAX_ANSWER_TOKENS),
    }
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise InvalidRequest(f"It must be from {least:g} to {most:g}.", param=f"{where}.{name}")
    try:
        check_schema(sampling.response_format)
    except SchemaTooLarge as error:
        raise InvalidRequest(str(error), param=f"{where}.response_format") from None
