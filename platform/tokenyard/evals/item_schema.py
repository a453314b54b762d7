"""The schema of an eval's items: the part of JSON Schema that can be checked in time that follows from its size."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from tokenyard.core.schemas import SchemaTooLarge, check_schema
from tokenyard.evals.ports import Json

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_NOTES = frozenset(("title", "description", "default", "examples", "$schema", "$id", "$comment"))
_BOUNDS: Mapping[str, tuple[tuple[type, ...], Callable[..., bool], str]] = {
    "minimum": ((int, float), lambda value, bound: value >= bound, "is less than"),
    "maximum": ((int, float), lambda value, bound: value <= bound, "is more than"),
    "minLength": ((str,), lambda value, bound: len(value) >= bound, "has fewer characters than"),
    "maxLength": ((str,), lambda value, bound: len(value) <= bound, "has more characters than"),
    "minItems": ((list,), lambda value, bound: len(value) >= bound, "has fewer items than"),
    "maxItems": ((list,), lambda value, bound: len(value) <= bound, "has more items than"),
}
_VALUES: Mapping[str, tuple[type, ...]] = {
    "properties": (dict,),
    "additionalProperties": (dict, bool),
    "items": (dict, bool),
    "enum": (list,),
    "const": (object,),
}
_SHAPED = frozenset(("type", "required", *_VALUES))


class ItemSchemaProblem(ValueError):
    """What is wrong with a schema; `param` is the path to it in the schema."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ItemSchema:
    """A checked schema."""

    def __init__(self, schema: Json) -> None:
        """Raise `ItemSchemaProblem` where items could not be checked against `schema`."""
        try:
            check_schema(schema)
        except SchemaTooLarge as error:
            raise ItemSchemaProblem(f"The schema is too large: {error}") from None
        if schema.get("type", "object") != "object":
            raise ItemSchemaProblem("An item is an object.", "type")
        self._schema = _checked(schema, "")

    def problem(self, item: object) -> str | None:
        """Return what of an item breaks the schema, as a sentence, or None."""
        return next(_problems(item, self._schema, "item"), None)


def _checked(schema: object, where: str) -> Json:
    """Return a schema with what an item is looked up in as sets: however much that is, it costs each value the same."""
    if not isinstance(schema, dict):
        raise ItemSchemaProblem("A schema must be an object.", where)
    _check_keywords(schema, where)
    found = dict(schema)
    if "properties" in schema:
        found["properties"] = {
            name: _checked(inner, f"{where}.properties.{name[:40]}".removeprefix("."))
            for name, inner in schema["properties"].items()
        }
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            found[name] = _checked(schema[name], f"{where}.{name}".removeprefix("."))
    kinds = schema.get("type", list(_TYPES))
    found["type"] = list(dict.fromkeys(kinds if isinstance(kinds, list) else [kinds]))
    found["required"] = list(dict.fromkeys(schema.get("required", ())))
    if "enum" in schema:
        found["enum"] = frozenset(map(_key, schema["enum"]))
    if "const" in schema:
        found["const"] = _key(schema["const"])
    return found


def _check_keywords(schema: Json, where: str) -> None:
    for name, value in schema.items():
        place = f"{where}.{name}".removeprefix(".")
        if name in _NOTES:
            continue
        if name not in _SHAPED and name not in _BOUNDS:
            offered = ", ".join(sorted(_SHAPED | _BOUNDS.keys()))
            raise ItemSchemaProblem(f"The keyword '{name[:40]}' is not checked here; there are {offered}.", place[:200])
        if not _is_right(name, value):
            raise ItemSchemaProblem(f"The value of '{name}' is not one that JSON Schema has for it.", place)


def _is_right(name: str, value: object) -> bool:
    if name == "type":
        kinds = value if isinstance(value, list) else [value]
        return bool(kinds) and all(isinstance(kind, str) and kind in _TYPES for kind in kinds)
    if name == "required":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if name in _BOUNDS:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _VALUES[name])


def _problems(value: object, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    kinds = schema["type"]
    if not any(_is_a(value, kind) for kind in kinds):
        yield f"{where} is not of type {' or '.join(kinds)}"
        return
    yield from _of_value(value, schema, where)
    if isinstance(value, dict):
        yield from _inside_object(value, schema, where)
    elif isinstance(value, list):
        inner = schema.get("items")
        if isinstance(inner, dict):
            for place, one in enumerate(value):
                yield from _problems(one, inner, f"{where}.{place}")
        elif inner is False and value:
            yield f"{where} must have no items"


def _of_value(value: object, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if "enum" in schema and _key(value) not in schema["enum"]:
        yield f"{where} is none of the values of its enum"
    if "const" in schema and _key(value) != schema["const"]:
        yield f"{where} is not the value that it must be"
    for name, (types, holds, why) in _BOUNDS.items():
        if name in schema and isinstance(value, types) and not isinstance(value, bool):
            if not holds(value, schema[name]):
                yield f"{where} {why} {schema[name]}"


def _inside_object(value: Json, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from (f"{where} has no '{name[:40]}'" for name in schema["required"] if name not in value)
    properties = schema.get("properties", {})
    other = schema.get("additionalProperties", True)
    for name, one in value.items():
        if name in properties:
            yield from _problems(one, properties[name], f"{where}.{name[:40]}")
        elif isinstance(other, dict):
            yield from _problems(one, other, f"{where}.{name[:40]}")
        elif other is False:
            yield f"{where} has '{name[:40]}', which its schema does not allow"


def _is_a(value: object, kind: str) -> bool:
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _key(value: object) -> Hashable:
    """Return the same for values that are the same to JSON Schema: to Python, True is 1."""
    if isinstance(value, dict):
        return frozenset((name, _key(one)) for name, one in value.items())
    if isinstance(value, list):
        return tuple(map(_key, value))
    return isinstance(value, bool), value
