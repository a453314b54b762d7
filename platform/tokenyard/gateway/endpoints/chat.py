"""`POST /v1/chat/completions`."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import orjson
from msgspec import UNSET, UnsetType

from tokenyard.core.catalog import BaseModel
from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.endpoint import Endpoint, Prompt
from tokenyard.gateway.endpoints.fields import BOOLEAN, Json, RequestField, integer, only, refused
from tokenyard.gateway.endpoints.messages import MESSAGES, RESPONSE_FORMAT, TOOL_CHOICE, TOOLS, ToolCall
from tokenyard.gateway.endpoints.shared_fields import MAX_TOKENS, SHARED_FIELDS
from tokenyard.gateway.endpoints.usage import CompletionUsage, StreamUsage, read_usage

_TOOLS_INSTEAD = "use 'tools' and 'tool_choice'."
_MAX_TOKENS = integer(1, MAX_TOKENS, "Default: the model's own, and never more than its context has room for.")

CHAT_FIELDS: Mapping[str, RequestField] = {
    **SHARED_FIELDS,
    "audio": refused("this model answers in text only."),
    "function_call": refused(_TOOLS_INSTEAD),
    "functions": refused(_TOOLS_INSTEAD),
    "logprobs": BOOLEAN,
    "max_completion_tokens": _MAX_TOKENS,
    "max_tokens": _MAX_TOKENS,
    "messages": MESSAGES,
    "modalities": only(["text"]),
    "moderation": refused("it is not offered here."),
    "parallel_tool_calls": BOOLEAN,
    "reasoning_effort": only("none"),
    "response_format": RESPONSE_FORMAT,
    "tool_choice": TOOL_CHOICE,
    "tools": TOOLS,
    "top_logprobs": integer(0, 20),
    "verbosity": only("medium"),
    "web_search_options": refused("it is not offered here."),
}

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class TokenLogprob(msgspec.Struct):
    """`bytes` is null where the token is no text of its own."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenTokenLogprob(TokenLogprob):
    """A token of the answer, and those that were the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(msgspec.Struct):
    """Log probabilities of the answer's tokens."""

    content: list[ChosenTokenLogprob] | None
    refusal: list[ChosenTokenLogprob] | None


class ChatReplyMessage(msgspec.Struct):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct):
    """One answer."""

    index: int
    message: ChatReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    system_fingerprint: str | UnsetType = UNSET


class CalledFunctionDelta(msgspec.Struct):
    """More of a called function."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct):
    """More of the tool call at `index`."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: CalledFunctionDelta | UnsetType = UNSET


class ChatDelta(msgspec.Struct):
    """More of an answer."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct):
    """More of one answer."""

    index: int
    delta: ChatDelta
    finish_reason: FinishReason | None
    logprobs: ChatLogprobs | UnsetType | None = UNSET


class ChatCompletionChunk(msgspec.Struct):
    """One event of a stream. Where usage was asked for, a last event before `[DONE]` tells it and has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    system_fingerprint: str | UnsetType = UNSET


def _check(body: Json, model: BaseModel) -> None:
    """Refuse tools where the model cannot call them, and a choice among none."""
    wanted = body.get("tool_choice", "auto" if "tools" in body else "none") != "none"
    if wanted and not model.calls_tools:
        raise InvalidRequest("This model does not call tools.", param="tools", code="unsupported_parameter")
    if wanted and "tools" not in body:
        raise InvalidRequest("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")


def _prompts(body: Json, model: BaseModel) -> list[Prompt]:
    """Return the one prompt: all texts that the template may print, and what the template adds."""
    texts = []
    for message in body["messages"]:
        for field, value in message.items():
            if field == "role":  # one of a few words, part of what the template adds
                continue
            if isinstance(value, str):
                texts.append(value)
            elif field == "content" and value is not None:
                texts.extend(part["text"] for part in value)
            elif value is not None:
                texts.append(_as_in_a_template(value))
    if "tools" in body:
        texts.append(_as_in_a_template(body["tools"]))
    return [Prompt(texts, model.template_tokens + model.template_tokens_per_message * len(body["messages"]))]


def _as_in_a_template(value: Any) -> str:
    # Templates may print JSON with an indent of four.
    printed = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return printed.replace("\n", "\n  ").replace("  ", "    ")


CHAT = Endpoint(
    path="/v1/chat/completions",
    name="ChatCompletion",
    summary="Answer a conversation",
    fields=CHAT_FIELDS,
    input="messages",
    max_tokens_fields=("max_completion_tokens", "max_tokens"),
    check=_check,
    prompts=_prompts,
    reply=ChatCompletion,
    event=ChatCompletionChunk,
    read_usage=read_usage,
    stream_usage=StreamUsage,
)
