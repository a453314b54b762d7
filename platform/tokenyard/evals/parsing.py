"""Reads the parts of a body that have many shapes, and says in OpenAI's words what is wrong with them."""

import re
from typing import TypeVar

import msgspec

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.schemas import json_problem

Shape = TypeVar("Shape")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_QUOTED_CHARACTERS = 100


def shaped(value: object, shape: type[Shape], where: str) -> Shape:
    """Return `value` as a `shape`, or raise `InvalidRequest`, which names the field below `where`."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
    inner = place.removesuffix("`").removeprefix(".")
    param = f"{where}.{inner}" if inner else where
    if found := _MISSING.fullmatch(what):
        param = f"{param}.{found[1]}"
        raise InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    if found := _UNKNOWN.fullmatch(what):
        param = f"{param}.{found[1][:_QUOTED_CHARACTERS]}"
        raise InvalidRequest(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    raise InvalidRequest(f"Invalid '{param}': {what[:_QUOTED_CHARACTERS]}.", param=param, code="invalid_value")


def check_json(value: object, where: str) -> None:
    """Raise `InvalidRequest` where JSON could not be stored, and shown again as it was sent."""
    problem = json_problem(value)
    if problem is not None:
        raise InvalidRequest(f"Invalid '{where}': {problem}.", param=where, code="invalid_value")


def refused(param: str, why: str) -> InvalidRequest:
    """Return what to answer to something of OpenAI's that is not offered here."""
    return InvalidRequest(f"Unsupported parameter: '{param}': {why}", param=param, code="unsupported_parameter")
