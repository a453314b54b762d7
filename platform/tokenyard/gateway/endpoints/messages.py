"""Chat messages, tools and formats: their types, and how they are rebuilt so that nothing else reaches the replica."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tokenyard.gateway.endpoints.fields import (
    Json,
    RequestField,
    array_of_objects,
    boolean,
    bounded,
    invalid,
    mapping,
    missing,
    text,
    unknown,
    wrong_type,
)

MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_CALLS = 128

# `developer` is OpenAI's newer name of the system role, which most chat templates do not know.
_ROLES = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_IGNORED = frozenset({"annotations", "weight", "function_call"})


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    """A part of a message."""

    text: str


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal"):
    """A part of an assistant's message in which it refused."""

    refusal: str


class CalledFunction(msgspec.Struct):
    """`arguments` are JSON as the model wrote it, which need not be valid."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    """A function that the model called."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True):
    """`content` is required but for an assistant that called tools; `tool_call_id` is required of a tool.

    `annotations`, `weight` and `function_call` are accepted and change nothing.
    """

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart | RefusalPart], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1, max_length=MAX_CALLS)] | None = None
    tool_call_id: str | None = None
    annotations: Any = None
    weight: Any = None
    function_call: Any = None


class FunctionDefinition(msgspec.Struct):
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


class ToolChoice(msgspec.Struct):
    """The one function that the model must call."""

    type: Literal["function"]
    function: ChosenFunction


class TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    """Any text."""


class JsonObjectFormat(msgspec.Struct, tag_field="type", tag="json_object"):
    """Some JSON object."""


class JsonSchemaDefinition(msgspec.Struct):
    """A named JSON schema."""

    name: str
    schema: Json
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON after a schema."""

    json_schema: JsonSchemaDefinition


def messages(name: str, value: Any) -> list[Json]:
    """Return the messages with only known fields.

    Raises:
        InvalidRequest: names the message and what is wrong with it.
    """
    return [_message(f"{name}[{place}]", one) for place, one in enumerate(array_of_objects(name, value, MAX_MESSAGES))]


def _message(name: str, message: Json) -> Json:
    role = message.get("role")
    if role is None:
        raise missing(f"{name}.role")
    if not isinstance(role, str) or role not in _ROLES:
        listed = ", ".join(f"'{word}'" for word in _ROLES)
        raise invalid(f"{name}.role", f"Supported values are: {listed}.")
    rebuilt: Json = {"role": _ROLES[role]}
    for field, value in message.items():
        if value is None or field == "role" or field in _IGNORED:
            continue
        if field not in ChatMessage.__struct_fields__ and field != "audio":
            raise unknown(f"{name}.{field}")
        rebuilt[field] = _field(f"{name}.{field}", field, value)
    if "content" not in rebuilt:
        if role != "assistant" or "tool_calls" not in rebuilt:
            raise missing(f"{name}.content")
        rebuilt["content"] = None
    if role == "tool" and "tool_call_id" not in rebuilt:
        raise missing(f"{name}.tool_call_id")
    return rebuilt


def _field(name: str, field: str, value: Any) -> Any:
    if field == "content":
        return value if isinstance(value, str) else _parts(name, value)
    if field == "tool_calls":
        return [_tool_call(f"{name}[{at}]", one) for at, one in enumerate(array_of_objects(name, value, MAX_CALLS))]
    if field == "audio":
        raise invalid(name, "this model takes text only.")
    return text(name, value)


def _parts(name: str, value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list):
        raise wrong_type(name, "a string or an array of objects", value)
    return [_part(f"{name}[{place}]", one) for place, one in enumerate(array_of_objects(name, value, MAX_MESSAGES))]


def _part(name: str, part: Json) -> dict[str, str]:
    kind = part.get("type")
    if kind not in ("text", "refusal"):
        # Nothing is ever fetched from a tenant's URL, and the served models take text only.
        raise invalid(f"{name}.type", "this model takes text only: the supported value is 'text'.")
    if kind not in part:
        raise missing(f"{name}.{kind}")
    return {"type": "text", "text": text(f"{name}.{kind}", part[kind])}


def _tool_call(name: str, call: Json) -> Json:
    if call.get("type", "function") != "function":
        raise invalid(f"{name}.type", "the supported value is 'function'.")
    function = mapping(f"{name}.function", call.get("function"))
    return {
        "id": text(f"{name}.id", call.get("id")),
        "type": "function",
        "function": {
            "name": text(f"{name}.function.name", function.get("name")),
            "arguments": text(f"{name}.function.arguments", function.get("arguments")),
        },
    }


def tools(name: str, value: Any) -> list[Json]:
    """Return the function tools with only known fields."""
    bounded(name, value)
    return [_tool(f"{name}[{place}]", one) for place, one in enumerate(array_of_objects(name, value, MAX_TOOLS))]


def _tool(name: str, tool: Json) -> Json:
    _is_function(name, tool)
    return {"type": "function", "function": _definition(f"{name}.function", tool.get("function"), "parameters")}


def tool_choice(name: str, value: Any) -> str | Json:
    """Accept none, auto, required, or one named function."""
    if value in ("none", "auto", "required"):
        return str(value)
    _is_function(name, mapping(name, value))
    function = mapping(f"{name}.function", value.get("function"))
    return {"type": "function", "function": {"name": text(f"{name}.function.name", function.get("name"))}}


def _is_function(name: str, given: Json) -> None:
    if given.get("type") != "function":
        raise invalid(f"{name}.type", "the supported value is 'function'.")


def response_format(name: str, value: Any) -> Json:
    """Accept text, json_object, or json_schema with its schema."""
    kind = mapping(name, value).get("type")
    if kind in ("text", "json_object"):
        return {"type": kind}
    if kind != "json_schema":
        raise invalid(f"{name}.type", "Supported values are: 'text', 'json_object', 'json_schema'.")
    bounded(name, value)
    definition = _definition(f"{name}.json_schema", value.get("json_schema"), "schema")
    if "schema" not in definition:
        raise missing(f"{name}.json_schema.schema")
    return {"type": kind, "json_schema": definition}


def _definition(name: str, value: Any, schema_field: str) -> Json:
    """Return a named JSON schema with only known fields."""
    given = mapping(name, value)
    if given.get("name") is None:
        raise missing(f"{name}.name")
    checks = (("name", text), ("description", text), (schema_field, mapping), ("strict", boolean))
    return {field: check(f"{name}.{field}", given[field]) for field, check in checks if given.get(field) is not None}


_Tools = Annotated[list[FunctionTool], Meta(min_length=1, max_length=MAX_TOOLS)]
_Messages = Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]

MESSAGES = RequestField(messages, _Messages, "The conversation so far.")
TOOLS = RequestField(tools, _Tools, "Functions that the model may call, where it can.")
TOOL_CHOICE = RequestField(tool_choice, Literal["none", "auto", "required"] | ToolChoice, "Only with `tools`.")
RESPONSE_FORMAT = RequestField(response_format, TextFormat | JsonObjectFormat | JsonSchemaFormat)
