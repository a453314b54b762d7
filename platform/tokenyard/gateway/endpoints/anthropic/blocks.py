"""What the messages, tools and settings of a Messages request are made of."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tokenyard.gateway.endpoints.body import EndUser
from tokenyard.gateway.endpoints.chat_messages import MAX_PARTS
from tokenyard.gateway.endpoints.invalid_body import Json


class CacheControl(msgspec.Struct, forbid_unknown_fields=True):
    """Accepted and not needed: prompts are cached without it, as long as there is room."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Text(msgspec.Struct):
    """A text, wherever it stands."""

    text: str
    cache_control: CacheControl | None = None
    citations: None = None


class TextBlock(Text, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A text among other blocks."""


class TextAlone(Text, kw_only=True, forbid_unknown_fields=True):
    """A text where nothing else may stand."""

    # A tag would be no more than a hint where there are no others.
    type: Literal["text"]


class Base64Image(msgspec.Struct, tag_field="type", tag="base64", forbid_unknown_fields=True):
    """The image itself: no address is ever fetched."""

    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class ImageBlock(msgspec.Struct, tag_field="type", tag="image", forbid_unknown_fields=True):
    """An image that a user shows, for models that take some."""

    source: Base64Image
    cache_control: CacheControl | None = None
    transformations: None = None


class DirectCaller(msgspec.Struct, tag_field="type", tag="direct", forbid_unknown_fields=True):
    """The model itself."""


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use", forbid_unknown_fields=True):
    """A tool that the assistant called, as it was told."""

    id: str
    name: str
    input: Json
    cache_control: CacheControl | None = None
    caller: DirectCaller | None = None
    toolset_name: None = None


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result", forbid_unknown_fields=True):
    """What came of a tool that was called. With `is_error` the model reads `Error: ` before it."""

    tool_use_id: str
    content: str | Annotated[list[TextAlone], Meta(max_length=MAX_PARTS)] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    toolset_name: None = None


Block = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock


class InputMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A string is one block of text. An assistant says texts and uses tools, a user says texts, shows images and has
    the results of tools.

    What one role says in several messages in a row is one message. An assistant's at the end is continued.
    """

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Meta(min_length=1, max_length=MAX_PARTS)]


class CustomTool(msgspec.Struct, forbid_unknown_fields=True):
    """A tool of the client's own; `input_schema` is a JSON schema.

    With `strict` its input follows the schema; that is the default where a tool has to be used. The model alone calls
    it, it is offered from the beginning, and its input is told as it comes.
    """

    name: str
    input_schema: Json
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    allowed_callers: Annotated[list[Literal["direct"]], Meta(max_length=1)] | None = None
    defer_loading: Literal[False] | None = None
    eager_input_streaming: Literal[True] | None = None
    input_examples: None = None


class AutoChoice(msgspec.Struct, tag_field="type", tag="auto", forbid_unknown_fields=True):
    """The model decides."""

    disable_parallel_tool_use: bool | None = None


class AnyChoice(msgspec.Struct, tag_field="type", tag="any", forbid_unknown_fields=True):
    """The model must use a tool."""

    disable_parallel_tool_use: bool | None = None


class NamedChoice(msgspec.Struct, tag_field="type", tag="tool", forbid_unknown_fields=True):
    """The model must use this tool."""

    name: str
    disable_parallel_tool_use: bool | None = None


class NoneChoice(msgspec.Struct, tag_field="type", tag="none", forbid_unknown_fields=True):
    """The model may use no tool."""


ToolUseChoice = AutoChoice | AnyChoice | NamedChoice | NoneChoice


class DisabledThinking(msgspec.Struct, tag_field="type", tag="disabled", forbid_unknown_fields=True):
    """The model answers at once."""


class AdaptiveThinking(msgspec.Struct, tag_field="type", tag="adaptive", forbid_unknown_fields=True):
    """The model thinks as much as it does; its answer tells nothing of that."""

    display: Literal["omitted"] | None = None


class JsonOutput(msgspec.Struct, forbid_unknown_fields=True):
    """JSON after a schema."""

    type: Literal["json_schema"]
    schema: Json


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The form of the answer."""

    format: JsonOutput | None = None
    effort: None = None


class RequestMetadata(msgspec.Struct, forbid_unknown_fields=True):
    """`user_id` is the client's own name of its user."""

    user_id: EndUser | None = None
