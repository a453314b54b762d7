"""Prompts that may be a text, several texts, the token ids of one, or those of several: as OpenAI takes them."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.invalid_body import Json, invalid

MAX_TOKEN_ID = 2**31 - 1

_TEXT: Json = {"type": "string", "minLength": 1}
_TOKENS: Json = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}, "minItems": 1}
_TokenIds = Annotated[list[Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)]], Meta(min_length=1)]


def input_schema(most: int) -> Json:
    """Return the JSON schema of one to `most` prompts."""
    several = [{"type": "array", "items": one, "minItems": 1, "maxItems": most} for one in (_TEXT, _TOKENS)]
    return {"anyOf": [_TEXT, _TOKENS, *several]}


def each_input(value: Any) -> list[str] | list[list[int]]:
    """Return the prompts of a field that `check_input` has let through."""
    several = isinstance(value, list) and not isinstance(value[0], int)
    return value if several else [value]


def check_input(name: str, value: object, most: int) -> None:
    """Raise `InvalidRequest` where the field `name` is not one to `most` prompts, none of them empty."""
    if (value and isinstance(value, str)) or _is_tokens(value):
        return
    if value == []:
        raise invalid(name, "empty array. Expected an array with minimum length 1.", "empty_array")
    if isinstance(value, list) and len(value) > most and not isinstance(value[0], int):
        raise invalid(name, f"at most {most} of them in one request.", "array_above_max_length")
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if value == "" or (isinstance(value, list) and texts and "" in value):
        raise invalid(name, "it holds an empty text.", "empty_string")
    if not (isinstance(value, list) and (texts or all(_is_tokens(one) for one in value))):
        message = "expected a string, an array of strings, an array of token ids, or an array of arrays of token ids."
        raise InvalidRequest(f"Invalid type for '{name}': {message}", param=name, code="invalid_type")


def _is_tokens(value: object) -> bool:
    try:
        msgspec.convert(value, _TokenIds)  # there may be a million: no loop of our own
    except msgspec.ValidationError:
        return False
    return True
