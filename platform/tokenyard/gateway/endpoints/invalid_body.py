"""Says in OpenAI's words what is wrong with a request body: `param` names the field, `code` is for programs."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.schemas import SchemaTooLarge, check_schema

Json = dict[str, Any]
"""JSON of the client's own shape, such as a schema, or what is sent to a replica."""

_MAX_NAME = 64
_MAX_FINDING = 1024
_MESSAGES = "messages"

# How `msgspec` words its findings; a test holds each of them.
# Before the place, which is of our own names, may stand whatever a client wrote.
_WHERE = re.compile(r" - at (?:`key` in )?`\$\.?((?:\.?\w+|\[(?:\d+|\.\.\.)\])*?)(?:\[\.\.\.\])*`\Z", re.ASCII)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `(.*)`, got `(.*)`")
_OUTSIDE = re.compile(r"Expected `(int|float)` ([<>]=) (\S+)")
_LENGTH = re.compile(r"Expected `(array|str)` of length ([<>]=) (\d+)")
_TYPES = {
    "object": "an object",
    "array": "an array",
    "str": "a string",
    "bool": "a boolean",
    "int": "an integer",
    "float": "a decimal",
    "null": "null",
}


def invalid(name: str | None, why: str, code: str = "invalid_value") -> InvalidRequest:
    return InvalidRequest(f"Invalid '{name}': {why}", param=name, code=code)


def missing(name: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def unsupported(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Unsupported parameter: '{name}': {why}", param=name, code="unsupported_parameter")


def invalid_body(error: Exception, refused: Mapping[str, str]) -> InvalidRequest:
    """Return what to answer to a body that `msgspec` cannot read; `refused` says why a field is not offered here."""
    if not isinstance(error, msgspec.ValidationError):
        return InvalidRequest(
            "We could not parse the JSON body of your request. The API expects a JSON payload, but what was sent was "
            "not valid JSON."
        )
    finding = _short(str(error))
    place = _WHERE.search(finding)
    finding, where = (finding, None) if place is None else (finding[: place.start()], place[1])
    if found := _MISSING.fullmatch(finding):
        return missing(_inside(where, found[1]))
    if found := _UNKNOWN.fullmatch(finding):
        name = _inside(where, found[1])
        return InvalidRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if not where:
        return InvalidRequest("The JSON body of your request must be an object.")
    if found := _WRONG_TYPE.fullmatch(finding):
        return _wrong_type(where, found[1], found[2], refused)
    return _invalid_value(where, finding)


def _short(finding: str) -> str:
    """Leave out the middle of what a client wrote: to look for anything in megabytes holds up everybody."""
    return finding if len(finding) < 2 * _MAX_FINDING else finding[:_MAX_FINDING] + finding[-_MAX_FINDING:]


def _inside(where: str | None, field: str) -> str:
    return f"{where}.{field[:_MAX_NAME]}" if where else field[:_MAX_NAME]


def _wrong_type(name: str, expected: str, got: str, refused: Mapping[str, str]) -> InvalidRequest:
    if expected == "null":
        return unsupported(name, refused.get(name, "it is not offered here."))
    kinds = " or ".join(_TYPES.get(one, one) for one in expected.split(" | ") if one != "null")
    message = f"Invalid type for '{name}': expected {kinds}, but got {_TYPES.get(got, got)} instead."
    return InvalidRequest(message, param=name, code="invalid_type")


def _invalid_value(name: str, finding: str) -> InvalidRequest:
    if found := _OUTSIDE.fullmatch(finding):
        kind = "integer" if found[1] == "int" else "decimal"
        side, limit = ("below", "min") if found[2] == ">=" else ("above", "max")
        why = f"{kind} {side} {limit}imum value. Expected a value {found[2]} {found[3]}."
        return invalid(name, why, f"{kind}_{side}_{limit}_value")
    if found := _LENGTH.fullmatch(finding):
        kind, a_kind = ("array", "an array") if found[1] == "array" else ("string", "a string")
        if found[2] == ">=":
            return invalid(name, f"empty {kind}. Expected {a_kind} with minimum length {found[3]}.", f"empty_{kind}")
        why = f"{kind} too long. Expected {a_kind} with maximum length {found[3]}."
        return invalid(name, why, f"{kind}_above_max_length")
    return invalid(name, f"{finding[0].lower()}{finding[1:_MAX_NAME].replace('`', '')}.")


@contextmanager
def blamed_on(name: str) -> Iterator[None]:
    """Blame the field `name` for what is wrong with the chat messages that were made of it."""
    try:
        yield
    except InvalidRequest as error:
        given = error.param or ""
        if given.startswith(_MESSAGES):
            error.message = error.message.replace(f"'{given}'", f"'{name}'")
            error.param = name
        raise


def bounded(name: str, value: object) -> None:
    """Refuse JSON of the client's own shape that is too deep or too large to be printed and compiled."""
    try:
        check_schema(value)
    except SchemaTooLarge as error:
        raise invalid(name, str(error)) from None
