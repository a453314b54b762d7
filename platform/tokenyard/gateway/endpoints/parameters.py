"""Checks of single request parameters, with OpenAI's words for what is wrong."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tokenyard.core.errors import InvalidRequest

Check = Callable[[str, Any], Any]
"""Takes a parameter's name and value; returns what to send to the replica."""

_TYPE_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    type(None): "null",
}


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


def integer(low: int, high: int) -> Check:
    """Accept whole numbers from `low` to `high`."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, "an integer", value)
        if value < low:
            why = f"integer below minimum value. Expected a value >= {low}, but got {value} instead."
            raise invalid(name, why, "integer_below_min_value")
        if value > high:
            why = f"integer above maximum value. Expected a value <= {high}, but got {value} instead."
            raise invalid(name, why, "integer_above_max_value")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Accept numbers from `low` to `high`."""

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(name, "a decimal", value)
        if value < low:
            why = f"decimal below minimum value. Expected a value >= {low}, but got {value} instead."
            raise invalid(name, why, "decimal_below_min_value")
        if value > high:
            why = f"decimal above maximum value. Expected a value <= {high}, but got {value} instead."
            raise invalid(name, why, "decimal_above_max_value")
        return value

    return check


def stop(name: str, value: Any) -> list[str]:
    """Accept a stop sequence or up to four."""
    sequences = [value] if isinstance(value, str) else value
    if not isinstance(sequences, list) or not all(isinstance(one, str) for one in sequences):
        raise wrong_type(name, "a string or an array of strings", value)
    if len(sequences) > 4:
        why = f"array too long. Expected an array with maximum length 4, but got an array with length {len(sequences)}."
        raise invalid(name, why, "array_above_max_length")
    if "" in sequences:
        raise invalid(name, "a stop sequence may not be empty.")
    return sequences


def logit_bias(name: str, value: Any) -> dict[str, float]:
    """Accept {token id: bias from -100 to 100}."""
    if not isinstance(value, dict):
        raise wrong_type(name, "an object", value)
    check = number(-100, 100)
    for token, bias in value.items():
        if not token.isascii() or not token.isdecimal():
            raise invalid(name, f"the key '{token[:32]}' is not a token id.")
        check(f"{name}.{token[:32]}", bias)
    return value


def mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(name, "an object", value)
    return value


def array_of_objects(name: str, value: Any, most: int) -> Sequence[dict[str, Any]]:
    """Accept a list of 1 to `most` objects."""
    if not isinstance(value, list):
        raise wrong_type(name, "an array of objects", value)
    if not value:
        why = "empty array. Expected an array with minimum length 1, but got an empty array instead."
        raise invalid(name, why, "empty_array")
    if len(value) > most:
        why = f"array too long. Expected an array with maximum length {most}, but got one with length {len(value)}."
        raise invalid(name, why, "array_above_max_length")
    for place, item in enumerate(value):
        if not isinstance(item, dict):
            raise wrong_type(f"{name}[{place}]", "an object", item)
    return value


MAX_DEPTH = 64
MAX_NODES = 20_000


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


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def only(*allowed: Any) -> Check:
    """Accept a parameter only at values that change nothing."""

    def check(name: str, value: Any) -> None:
        if value not in allowed:
            raise unsupported(name)

    return check


def ignored(_name: str, _value: Any) -> None:
    """Accept anything and send nothing."""


def refused(why: str) -> Check:
    """Refuse a parameter that OpenAI knows and this platform does not offer."""

    def check(name: str, _value: Any) -> None:
        raise unsupported(name, why)

    return check
