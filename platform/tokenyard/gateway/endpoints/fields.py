"""What one request field takes: its check, with OpenAI's words for what is wrong, and its type for the description."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from tokenyard.core.errors import InvalidRequest

Json = dict[str, Any]

Check = Callable[[str, Any], Any]
"""Takes a field's name and value; returns what to send to the replica, or None to send nothing."""

MAX_DEPTH = 64
MAX_NODES = 20_000

_TYPE_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class RequestField:
    """`type` is what `msgspec` makes the field's JSON schema of; None where the field is always refused."""

    check: Check
    type: Any
    description: str = ""


def wrong_type(name: str, expected: str, value: object) -> InvalidRequest:
    got = _TYPE_NAMES.get(type(value), "something else")
    return InvalidRequest(
        f"Invalid type for '{name}': expected {expected}, but got {got} instead.", param=name, code="invalid_type"
    )


def invalid(name: str, why: str, code: str = "invalid_value") -> InvalidRequest:
    return InvalidRequest(f"Invalid '{name}': {why}", param=name, code=code)


def missing(name: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def unknown(name: str) -> InvalidRequest:
    return InvalidRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def unsupported(name: str, why: str = "it is not supported with this model.") -> InvalidRequest:
    return InvalidRequest(f"Unsupported parameter: '{name}': {why}", param=name, code="unsupported_parameter")


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(name, "a boolean", value)
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    return value


def mapping(name: str, value: Any) -> Json:
    if not isinstance(value, dict):
        raise wrong_type(name, "an object", value)
    return value


def array_of_objects(name: str, value: Any, most: int) -> Sequence[Json]:
    """Accept a list of 1 to `most` objects."""
    if not isinstance(value, list):
        raise wrong_type(name, "an array of objects", value)
    sized(name, value, most)
    for place, item in enumerate(value):
        if not isinstance(item, dict):
            raise wrong_type(f"{name}[{place}]", "an object", item)
    return value


def sized(name: str, value: list[Any], most: int, least: int = 1) -> None:
    """Accept a list of `least` to `most` items."""
    if len(value) < least:
        why = "empty array. Expected an array with minimum length 1, but got an empty array instead."
        raise invalid(name, why, "empty_array")
    if len(value) > most:
        why = f"array too long. Expected an array with maximum length {most}, but got one with length {len(value)}."
        raise invalid(name, why, "array_above_max_length")


def bounded(name: str, value: Any) -> None:
    """Refuse JSON of the client's own shape that is too deep or too large to be printed and compiled."""
    nodes, level = 0, [value]
    for _ in range(MAX_DEPTH):
        nodes += len(level)
        if nodes > MAX_NODES:
            raise invalid(name, f"more than {MAX_NODES} values.")
        level = [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]
        if not level:
            return
    raise invalid(name, f"nested more than {MAX_DEPTH} levels deep.")


def _inside(value: Json | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


BOOLEAN = RequestField(boolean, bool)
TEXT = RequestField(text, str)


def integer(low: int, high: int, description: str = "") -> RequestField:
    """Accept whole numbers from `low` to `high`."""
    return RequestField(_within(low, high, "integer", int), Annotated[int, Meta(ge=low, le=high)], description)


def number(low: float, high: float, description: str = "") -> RequestField:
    """Accept numbers from `low` to `high`."""
    check = _within(low, high, "decimal", int, float)
    return RequestField(check, Annotated[float, Meta(ge=low, le=high)], description)


def _within(low: float, high: float, kind: str, *types: type) -> Check:
    expected = _TYPE_NAMES[types[-1]]

    def check(name: str, value: Any) -> Any:
        if type(value) not in types:
            raise wrong_type(name, expected, value)
        if value < low:
            why = f"{kind} below minimum value. Expected a value >= {low}, but got {value} instead."
            raise invalid(name, why, f"{kind}_below_min_value")
        if value > high:
            why = f"{kind} above maximum value. Expected a value <= {high}, but got {value} instead."
            raise invalid(name, why, f"{kind}_above_max_value")
        return value

    return check


def only(*allowed: Any) -> RequestField:
    """Accept a field only at values that change nothing."""

    def check(name: str, value: Any) -> None:
        if value not in allowed:
            raise unsupported(name)

    return RequestField(check, Annotated[Any, Meta(extra_json_schema={"enum": list(allowed)})])


def refused(why: str) -> RequestField:
    """Refuse a field that OpenAI knows and this platform does not offer."""

    def check(name: str, _value: Any) -> None:
        raise unsupported(name, why)

    return RequestField(check, None)


IGNORED = RequestField(lambda _name, _value: None, Any, "Accepted for compatibility; it changes nothing.")
