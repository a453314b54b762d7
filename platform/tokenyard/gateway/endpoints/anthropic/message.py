"""Anthropic's message as it is answered, whole and as the events of a stream."""

from typing import Literal

import msgspec

from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.anthropic.errors import AnthropicErrorBody
from tokenyard.gateway.endpoints.invalid_body import Json

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]


class MessageUsage(msgspec.Struct):
    """`input_tokens` are those that did not come from the cache: all of the prompt's are the sum of the three."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, usage: TokenUsage) -> "MessageUsage":
        return cls(usage.prompt_tokens - usage.cached_tokens, 0, usage.cached_tokens, usage.completion_tokens)


class TextContent(msgspec.Struct, tag_field="type", tag="text"):
    """What the model said."""

    text: str


class ToolUseContent(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A tool that the model wants used. An input that is no JSON object is told as `{"INVALID_JSON": "..."}`."""

    id: str
    name: str
    input: Json


class AnthropicMessage(msgspec.Struct, tag_field="type", tag="message"):
    """A whole answer, or in the first event of a stream its beginning, with no content and no reason to stop yet."""

    id: str
    role: Literal["assistant"]
    model: str
    content: list[TextContent | ToolUseContent]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageStart(msgspec.Struct, tag_field="type", tag="message_start"):
    """The first event. What the cache gave is not known yet: the usage of `message_delta` is the one that counts."""

    message: AnthropicMessage


class ContentBlockStart(msgspec.Struct, tag_field="type", tag="content_block_start"):
    """A block begins; each one ends before the next begins."""

    index: int
    content_block: TextContent | ToolUseContent


class TextDelta(msgspec.Struct, tag_field="type", tag="text_delta"):
    """More of a text."""

    text: str


class InputJsonDelta(msgspec.Struct, tag_field="type", tag="input_json_delta"):
    """More of the JSON of a tool's input."""

    partial_json: str


class ContentBlockDelta(msgspec.Struct, tag_field="type", tag="content_block_delta"):
    """More of a block."""

    index: int
    delta: TextDelta | InputJsonDelta


class ContentBlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop"):
    """A block is complete."""

    index: int


class MessageEnd(msgspec.Struct):
    """Why the model stopped."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta"):
    """The end of the answer, with the usage of all of it."""

    delta: MessageEnd
    usage: MessageUsage


class MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"):
    """The last event."""


MessageEvent = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | AnthropicErrorBody
)
"""`error` is the last event of a stream that failed."""
