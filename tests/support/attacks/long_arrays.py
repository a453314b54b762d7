"""Bodies in which one array, or one object, has very many elements: one for each place where a description has one."""

import json
from collections.abc import Iterator
from typing import Any

ELEMENTS = 100_000
MAX_BYTES = 4 * 1024 * 1024 - 64 * 1024  # what a paid endpoint reads, and the rest of the body
_MAX_DEPTH = 10
Json = dict[str, Any]


class LongArrays:
    """`document` is an OpenAPI description; where a body names a model, it is `model`."""

    def __init__(self, document: Json, model: str) -> None:
        self._document = document
        self._model = model

    def bodies(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield the path of each operation that takes JSON, the place in its body, and the body."""
        for path, operations in self._document["paths"].items():
            content = operations.get("post", {}).get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            if schema is not None and "{" not in path:
                for place, body in self._grown(schema, ()):
                    yield path, place, json.dumps(body, separators=(",", ":")).encode()

    def _grown(self, schema: Json, above: tuple[str, ...]) -> Iterator[tuple[str, object]]:
        """Yield each place below `schema`, and a value of it that has very many elements there."""
        if len(above) > _MAX_DEPTH or schema.get("$ref") in above:
            return
        above += (schema.get("$ref", ""),)
        schema = self._resolved(schema)
        for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            yield from self._grown(option, above)
        if not schema.keys() & {"type", "anyOf", "oneOf", "allOf", "enum", "const", "properties"}:
            yield "[]", [0] * ELEMENTS  # any JSON
        if schema.get("type") == "array":
            items = schema.get("items", {})
            yield "[]", _many(self._sample(items))
            for place, value in self._grown(items, above):
                yield f"[]{place}", [value]
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            more = schema.get("additionalProperties")
            element = self._sample(more) if isinstance(more, dict) else 0
            yield "{}", {**self._sample(schema), **_many_named(element)}
        for name, below in schema.get("properties", {}).items():
            for place, value in self._grown(below, above):
                yield f".{name}{place}", {**self._sample(schema), name: value}

    def _sample(self, schema: Json, depth: int = 0) -> Any:
        """Return a small value that fits `schema`."""
        schema = self._resolved(schema)
        options = [one for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) if one.get("type") != "null"]
        if options and depth < _MAX_DEPTH:
            return self._sample(options[0], depth + 1)
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        if schema.get("type") == "object":
            wanted = ((name, schema["properties"][name]) for name in schema.get("required", ()))
            return {name: self._model if name == "model" else self._sample(one, depth + 1) for name, one in wanted}
        if schema.get("type") == "array":
            return [self._sample(schema.get("items", {}), depth + 1)] * schema.get("minItems", 0)
        return "1" * max(1, schema.get("minLength", 0)) if schema.get("type") == "string" else schema.get("minimum", 1)

    def _resolved(self, schema: Json) -> Json:
        while "$ref" in schema:
            found: Json = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema


def _many(element: object) -> list[object]:
    size = len(json.dumps(element, separators=(",", ":"))) + 1
    return [element] * min(ELEMENTS, MAX_BYTES // size)


def _many_named(element: object) -> dict[str, object]:
    size = len(json.dumps(element, separators=(",", ":"))) + len('"100000":,')
    return {str(number): element for number in range(min(ELEMENTS, MAX_BYTES // size))}
