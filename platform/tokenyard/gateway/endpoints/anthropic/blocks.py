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


class TextBlock(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A text."""

    text: str
    cache_control: CacheControl | None = None
    citations: None = None


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use", forbid_unknown_fields=True):
    """A tool that the assistant called, as it was told."""

    id: str
    name: str
    input: Json
    cache_control: CacheControl | None = None


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result", forbid_unknown_fields=True):
    """What came of a tool that was called. With `is_error` the model reads `Error: ` before it."""

    tool_use_id: str
    content: str | Annotated[list[TextBlock], Meta(max_length=MAX_PARTS)] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


Block = TextBlock | ToolUseBlock | ToolResultBlock


class InputMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A string is one block of text. An assistant says texts and uses tools, a user says texts and has their results.

    What one role says in several messages in a row is one message. An assistant's at the end is continued.
    """

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Meta(min_length=1, max_length=MAX_PARTS)]


class CustomTool(msgspec.Struct, forbid_unknown_fields=True):
    """A tool of the client's own; `input_schema` is a JSON schema.

    With `strict` its input follows the schema; that is the default where a tool has to be used.
    """

    name: str
    input_schema: Json
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None


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


class JsonOutput(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    """JSON after a schema."""

    schema: Json


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The form of the answer."""

    format: JsonOutput | None = None
    effort: None = None


class RequestMetadata(msgspec.Struct, forbid_unknown_fields=True):
    """`user_id` is the client's own name of its user."""

    user_id: EndUser | None = None
