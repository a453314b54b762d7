"""How large JSON of a client's own shape may be, so that it can be walked, printed and handed to a compiler.

The last three are those that OpenAI publishes for structured outputs. What a schema costs when compiled cannot be told
from its size: a replica tries that out.
"""

from collections.abc import Iterable, Mapping

import msgspec

MAX_DEPTH = 64
MAX_VALUES = 20_000
MAX_PATTERN_CHARS = 4_096
MAX_PROPERTIES = 5_000
MAX_ENUM_VALUES = 1_000
MAX_CHARS = 120_000


class SchemaTooLarge(ValueError):
    """The message says in which way."""


def check_schema(schema: object) -> None:
    """Raise `SchemaTooLarge` where `schema`, any JSON, is over one of the bounds above."""
    values = properties = enums = chars = 0
    level = [schema]
    for _ in range(MAX_DEPTH):
        values += len(level)
        chars += sum(len(one) for one in level if isinstance(one, str))
        below: list[object] = []
        for one in level:
            if isinstance(one, Mapping):
                _check_patterns(one)
                properties += _size(one.get("properties"), Mapping)
                enums += _size(one.get("enum"), list)
                chars += sum(len(name) for name in one)
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
        _check(values + len(below), MAX_VALUES, "values")
        _check(properties, MAX_PROPERTIES, "properties")
        _check(enums, MAX_ENUM_VALUES, "enum values")
        _check(chars, MAX_CHARS, "characters")
        if not below:
            return
        level = below
    raise SchemaTooLarge(f"nested more than {MAX_DEPTH} levels deep.")


def _check_patterns(schema: Mapping[str, object]) -> None:
    """A name may be a pattern, too."""
    pattern = schema.get("pattern")
    _check(len(pattern) if isinstance(pattern, str) else 0, MAX_PATTERN_CHARS, "characters in a pattern")
    _check(max(map(len, schema), default=0), MAX_PATTERN_CHARS, "characters in a name")


def _size(value: object, kind: type[Mapping[str, object]] | type[list[object]]) -> int:
    return len(value) if isinstance(value, kind) else 0


def _check(found: int, limit: int, what: str) -> None:
    if found > limit:
        raise SchemaTooLarge(f"more than {limit} {what}.")


def json_problem(value: object) -> str | None:
    """Return why JSON could not be stored, and shown again as it was sent; None where it can be."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]
        if not level:
            break
    else:
        return f"it is nested more than {MAX_DEPTH} levels deep"
    try:
        same = msgspec.json.decode(msgspec.json.encode(value)) == value
    except (UnicodeError, OverflowError, msgspec.MsgspecError):
        same = False
    return None if same else "it holds a number or a text that JSON cannot carry"


def _inside(value: dict[str, object] | list[object]) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value
