"""Chat messages, tools and formats as the chat endpoint takes them."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tokenyard.gateway.endpoints.chat_contents.tool_arguments import printed, readable
from tokenyard.gateway.endpoints.invalid_body import Json, missing, unsupported

MAX_PARTS = 4096
MAX_CALLS = 128
_OfAnAnswer = Annotated[Any, Meta(description="OpenAI's client sends it back with an answer; models do not read it.")]


class TextPart(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A part of a message."""

    text: str


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    """A part of an assistant's message in which it refused."""

    refusal: str


class ImageUrl(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`url` holds the image itself, as `data:image/png;base64,` (or jpeg, webp, gif): no address is ever fetched."""

    url: str
    detail: Literal["auto"] = "auto"


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url", forbid_unknown_fields=True):
    """A part of a user's message, for models that take images."""

    image_url: ImageUrl


class CalledFunction(msgspec.Struct):
    """`arguments` are JSON as the model wrote it; what is no object counts as an empty one."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    """A function that the model called."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


ContentPart = TextPart | RefusalPart | ImagePart


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`content` is required but for an assistant that called tools; `tool_call_id` is required of a tool."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Meta(min_length=1, max_length=MAX_PARTS)] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1, max_length=MAX_CALLS)] | None = None
    tool_call_id: str | None = None
    audio: None = None
    annotations: _OfAnAnswer = None
    parsed: _OfAnAnswer = None
    function_call: None = None


class FunctionDefinition(msgspec.Struct, omit_defaults=True):
    """`parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class FunctionTool(msgspec.Struct):
    """A function that the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


class ChosenFunction(msgspec.Struct):
    """The name of a function among `tools`."""

    name: str


class ToolChoice(msgspec.Struct, tag_field="type", tag="function"):
    """The one function that the model must call."""

    function: ChosenFunction


class AllowedFunction(msgspec.Struct):
    """One of those that the model may call."""

    type: Literal["function"]
    function: ChosenFunction


class AllowedFunctions(msgspec.Struct):
    """Which of `tools` the model may call, and whether it must."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedFunction], Meta(min_length=1, max_length=MAX_CALLS)]


class AllowedTools(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    """Offers the model some of `tools` alone."""

    allowed_tools: AllowedFunctions


class TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    """Any text."""


class JsonObjectFormat(msgspec.Struct, tag_field="type", tag="json_object"):
    """Some JSON object."""


class JsonSchemaDefinition(msgspec.Struct, omit_defaults=True):
    """A named JSON schema."""

    name: str
    schema: Json
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON after a schema."""

    json_schema: JsonSchemaDefinition


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


def tidy(messages: Sequence[ChatMessage]) -> None:
    """Make of each message what chat templates know; one without what its role requires raises `InvalidRequest`."""
    for place, message in enumerate(messages):
        if message.content is None and not (message.role == "assistant" and message.tool_calls):
            raise missing(f"messages[{place}].content")
        if message.role == "tool" and message.tool_call_id is None:
            raise missing(f"messages[{place}].tool_call_id")
        if message.role != "user" and images(message):
            raise unsupported(f"messages[{place}].content", "only a user's message may hold images.")
        for at, call in enumerate(message.tool_calls or ()):
            name = f"messages[{place}].tool_calls[{at}].function.arguments"
            call.function.arguments = readable(call.function.arguments, name)
        if message.role == "developer":  # OpenAI's newer name of the system role
            message.role = "system"
        if isinstance(message.content, list):
            message.content = [
                TextPart(part.refusal) if isinstance(part, RefusalPart) else part for part in message.content
            ]
        message.annotations = message.parsed = None


def images(message: ChatMessage) -> list[ImagePart]:
    if not isinstance(message.content, list):
        return []
    return [part for part in message.content if isinstance(part, ImagePart)]


def texts(message: ChatMessage) -> Iterator[str]:
    """Yield every text of a message that a chat template may print, but for its role."""
    if isinstance(message.content, str):
        yield message.content
    else:
        yield from (part.text for part in message.content or () if isinstance(part, TextPart))
    yield from (text for text in (message.name, message.refusal, message.tool_call_id) if text is not None)
    for call in message.tool_calls or ():
        name = CalledFunction(call.function.name, "")
        yield as_in_a_template([msgspec.structs.replace(call, function=name)])
        yield printed(call.function.arguments)


def as_in_a_template(value: Sequence[msgspec.Struct]) -> str:
    """Return JSON at the greatest length at which templates print it, which is with an indent of four."""
    return msgspec.json.format(msgspec.json.encode(value), indent=4).decode().replace("\n", "\n    ")
