"""Rebuilds chat messages, tools and formats from what is allowed, so that nothing else reaches the replica."""

from typing import Any

from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.parameters import (
    array_of_objects,
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

# OpenAI's newer name of the system role, which most chat templates do not know.
_ROLES = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_MESSAGE_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio"})
_IGNORED = frozenset({"annotations", "weight", "function_call"})


def messages(name: str, value: Any) -> list[dict[str, Any]]:
    """Return the messages with only known fields.

    Raises:
        InvalidRequest: names the message and what is wrong with it.
    """
    return [_message(f"{name}[{place}]", one) for place, one in enumerate(array_of_objects(name, value, MAX_MESSAGES))]


def _message(name: str, message: dict[str, Any]) -> dict[str, Any]:
    role = message.get("role")
    if role is None:
        raise missing(f"{name}.role")
    if not isinstance(role, str) or role not in _ROLES:
        listed = ", ".join(f"'{word}'" for word in _ROLES)
        raise invalid(f"{name}.role", f"Supported values are: {listed}.")
    rebuilt: dict[str, Any] = {"role": _ROLES[role]}
    for field, value in message.items():
        if value is None or field == "role" or field in _IGNORED:
            continue
        if field not in _MESSAGE_FIELDS:
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


def _part(name: str, part: dict[str, Any]) -> dict[str, str]:
    kind = part.get("type")
    if kind not in ("text", "refusal"):
        # Nothing is ever fetched from a tenant's URL, and the served models take text only.
        raise invalid(f"{name}.type", "this model takes text only: the supported value is 'text'.")
    if kind not in part:
        raise missing(f"{name}.{kind}")
    return {"type": "text", "text": text(f"{name}.{kind}", part[kind])}


def _tool_call(name: str, call: dict[str, Any]) -> dict[str, Any]:
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


def tools(name: str, value: Any) -> list[dict[str, Any]]:
    """Return the function tools with only known fields."""
    bounded(name, value)
    return [_tool(f"{name}[{place}]", one) for place, one in enumerate(array_of_objects(name, value, MAX_TOOLS))]


def _tool(name: str, tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise invalid(f"{name}.type", "the supported value is 'function'.")
    function = mapping(f"{name}.function", tool.get("function"))
    rebuilt: dict[str, Any] = {"name": text(f"{name}.function.name", function.get("name"))}
    if function.get("description") is not None:
        rebuilt["description"] = text(f"{name}.function.description", function["description"])
    if function.get("parameters") is not None:
        rebuilt["parameters"] = mapping(f"{name}.function.parameters", function["parameters"])
    if function.get("strict") is not None:
        rebuilt["strict"] = bool(function["strict"])
    return {"type": "function", "function": rebuilt}


def tool_choice(name: str, value: Any) -> Any:
    """Accept none, auto, required, or one named function."""
    if value in ("none", "auto", "required"):
        return value
    function = mapping(f"{name}.function", mapping(name, value).get("function"))
    return {"type": "function", "function": {"name": text(f"{name}.function.name", function.get("name"))}}


def response_format(name: str, value: Any) -> dict[str, Any]:
    """Accept text, json_object, or json_schema with its schema."""
    kind = mapping(name, value).get("type")
    if kind in ("text", "json_object"):
        return {"type": kind}
    if kind != "json_schema":
        raise invalid(f"{name}.type", "Supported values are: 'text', 'json_object', 'json_schema'.")
    given = mapping(f"{name}.json_schema", value.get("json_schema"))
    if "name" not in given:
        raise missing(f"{name}.json_schema.name")
    bounded(name, given)
    return {"type": kind, "json_schema": {key: given[key] for key in _SCHEMA_FIELDS if key in given}}


_SCHEMA_FIELDS = ("name", "description", "schema", "strict")


def prompt(name: str, value: Any) -> str | list[Any]:
    """Accept what the completions endpoint takes: text, texts, token ids, or lists of token ids."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type(name, "a string or an array", value)
    if not value:
        raise invalid(name, "empty array. Expected an array with minimum length 1.", "empty_array")
    if not (_is_texts(value) or _is_tokens(value) or all(_is_tokens(one) for one in value)):
        raise InvalidRequest(
            f"Invalid type for '{name}': expected a string, an array of strings, an array of token ids, or an array "
            "of arrays of token ids.",
            param=name,
            code="invalid_type",
        )
    if not _is_tokens(value) and len(value) > MAX_PROMPTS:
        raise invalid(name, f"at most {MAX_PROMPTS} prompts in one request.", "array_above_max_length")
    return value


MAX_PROMPTS = 128


def _is_texts(value: list[Any]) -> bool:
    return all(isinstance(one, str) for one in value)


def _is_tokens(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(type(one) is int and 0 <= one < MAX_TOKEN_ID for one in value)
    )


MAX_TOKEN_ID = 2**31
