"""A response and the items of its output, as OpenAI's API has them."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenyard.core.errors import TokenyardError
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.body import ServedTier
from tokenyard.gateway.endpoints.chat import ChosenTokenLogprob, TokenLogprob
from tokenyard.gateway.endpoints.chat_messages import MAX_CALLS, JsonObjectFormat, TextFormat
from tokenyard.gateway.endpoints.invalid_body import Json

ResponseStatus = Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """What the model said."""

    text: str
    annotations: list[Json] = []
    logprobs: list[ChosenTokenLogprob] = []


class OutputTextMessage(msgspec.Struct, tag_field="type", tag="message"):
    """One message of the model."""

    id: str
    status: ItemStatus
    content: list[OutputText]
    role: Literal["assistant"] = "assistant"


class OutputFunctionCall(msgspec.Struct, tag_field="type", tag="function_call"):
    """A function that the model calls. `arguments` are JSON as the model wrote it, which need not be valid."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


OutputItem = OutputTextMessage | OutputFunctionCall


class InputTokensDetails(msgspec.Struct):
    """`cached_tokens` are part of the input's tokens. Writing to the cache is not counted apart."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct):
    """`reasoning_tokens` are part of the output's tokens."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct):
    """What the response used."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: TokenUsage, reasoning_tokens: int) -> "ResponseUsage":
        return cls(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(usage.cached_tokens),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens),
            total_tokens=usage.total_tokens,
        )


class ResponseFailure(msgspec.Struct):
    """Why a response failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str

    @classmethod
    def of(cls, error: TokenyardError) -> "ResponseFailure":
        """Return `error` as one of the codes that OpenAI's clients know."""
        known: dict[int, Literal["rate_limit_exceeded", "invalid_prompt"]] = {
            400: "invalid_prompt",
            429: "rate_limit_exceeded",
        }
        return cls(known.get(error.status, "server_error"), error.message)


class IncompleteDetails(msgspec.Struct):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseJsonSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema", omit_defaults=True):
    """JSON after a schema."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    schema: Json
    description: str | None = None
    strict: bool | None = None


ResponseFormatOption = TextFormat | JsonObjectFormat | ResponseJsonSchemaFormat


class ResponseText(msgspec.Struct, forbid_unknown_fields=True):
    """How the text is to look."""

    format: ResponseFormatOption | None = None
    verbosity: Literal["medium"] | None = None


class ResponseReasoning(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How much to think: models here cannot be told."""

    effort: Literal["none"] | None = None
    summary: None = None
    generate_summary: None = None
    context: None = None
    mode: None = None


class ResponseTool(msgspec.Struct, forbid_unknown_fields=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    type: Literal["function"]
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_.-]{1,128}$")]
    parameters: Json | None = None
    description: str | None = None
    strict: bool | None = None
    allowed_callers: None = None
    defer_loading: Literal[False] | None = None
    output_schema: None = None


class ResponseToolChoice(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """The one function that the model must call."""

    name: str


class AllowedResponseTool(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """One of those that the model may call."""

    name: str


class ResponseAllowedTools(msgspec.Struct, tag_field="type", tag="allowed_tools", forbid_unknown_fields=True):
    """Offers the model some of `tools` alone, and says whether it must call one."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedResponseTool], Meta(min_length=1, max_length=MAX_CALLS)]


class ReturnedTool(msgspec.Struct, tag_field="type", tag="function"):
    """A function that the model might call."""

    name: str
    parameters: Json | None
    strict: bool | None
    description: str | None


class Response(msgspec.Struct):
    """A response. What was left to the model to say is null."""

    id: str
    created_at: int
    status: ResponseStatus
    model: str
    output: list[OutputItem] = []
    usage: ResponseUsage | UnsetType = UNSET
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    background: bool = False
    completed_at: int | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: ResponseReasoning | None = None
    safety_identifier: str | None = None
    service_tier: ServedTier = "default"
    temperature: float | None = None
    text: ResponseText = msgspec.field(default_factory=lambda: ResponseText(TextFormat(), "medium"))
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | ResponseAllowedTools = "auto"
    tools: list[ReturnedTool] = []
    top_logprobs: int = 0
    top_p: float | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    user: str | UnsetType = UNSET
    object: Literal["response"] = "response"


class Deltas(msgspec.Struct, array_like=True):
    """Deltas of one item in a row: the characters of each, and its log probabilities where there are some.

    With what was said, these make up the events of a stream, at a few bytes a delta.
    """

    place: int
    sizes: list[int]
    logprobs: list[int] = []


class EventLogprob(msgspec.Struct):
    """A token of a delta, and those that were the likeliest in its place."""

    token: str
    logprob: float
    top_logprobs: list["EventTopLogprob"]


class EventTopLogprob(msgspec.Struct):
    """One of the likeliest tokens."""

    token: str
    logprob: float


class ResponseEvent(msgspec.Struct, omit_defaults=True):
    """One event of a stream; which fields it has follows from its `type`. They are numbered from 0."""

    type: str
    sequence_number: int
    response: Response | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    item: OutputItem | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    part: OutputText | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    logprobs: list[EventLogprob] | UnsetType = UNSET


def event_logprobs(logprobs: list[ChosenTokenLogprob]) -> list[EventLogprob]:
    """Return log probabilities as events tell them: without bytes."""
    return [
        EventLogprob(one.token, one.logprob, [EventTopLogprob(top.token, top.logprob) for top in one.top_logprobs])
        for one in logprobs
    ]


def output_logprobs(logprobs: list[Json]) -> list[ChosenTokenLogprob]:
    """Read what a replica tells of its tokens; a token that is no text of its own has no bytes."""
    read = msgspec.convert(logprobs, list[ChosenTokenLogprob])
    for one in read:
        one.bytes = one.bytes or []
        one.top_logprobs = [TokenLogprob(top.token, top.logprob, top.bytes or []) for top in one.top_logprobs]
    return read
