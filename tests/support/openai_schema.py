"""Checks what we send against OpenAI's own words: the types of its Python client, and its published JSON schemas.

Both are strict: a field that OpenAI does not have is an error, at any depth.
"""

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from pydantic import BaseModel, TypeAdapter

SCHEMA_VARIABLE = "TOKENYARD_OPENAI_SCHEMA"
"""The environment variable that names OpenAI's `openapi.json`."""

Schema = Mapping[str, Any]


def check_openai_type(value: dict[str, Any], type_: type) -> None:
    """Check a reply's JSON against a type of the `openai` package.

    Raises:
        pydantic.ValidationError: a field is missing or wrong.
        AssertionError: a field that the type does not have.
    """
    parsed: object = TypeAdapter(type_).validate_json(orjson.dumps(value), strict=True)
    extra = list(_extra(parsed, type_.__name__))
    assert not extra, f"fields that OpenAI does not have: {', '.join(extra)}"


def check_openai_schema(value: dict[str, Any], schema_name: str) -> None:
    """Check a reply's JSON against a schema of OpenAI's API description; without the description skip the test.

    Raises:
        AssertionError: says where the reply differs.
    """
    _checked(_path()).check(value, schema_name)


def openai_description() -> dict[str, Any]:
    """Return OpenAI's API description; without it skip the test."""
    return _read(_path())


def _path() -> str:
    path = os.environ.get(SCHEMA_VARIABLE)
    if not path:
        pytest.skip(f"{SCHEMA_VARIABLE} does not name OpenAI's openapi.json")
    return path


def _extra(parsed: object, where: str) -> Iterator[str]:
    if isinstance(parsed, BaseModel):
        yield from (f"{where}.{name}" for name in parsed.model_extra or {})
        for name in type(parsed).model_fields:
            yield from _extra(getattr(parsed, name), f"{where}.{name}")
    elif isinstance(parsed, dict):
        for name, value in parsed.items():
            yield from _extra(value, f"{where}.{name}")
    elif isinstance(parsed, list):
        for place, value in enumerate(parsed):
            yield from _extra(value, f"{where}[{place}]")


class ApiDescription:
    """An OpenAPI document whose component schemas values are checked against."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        # Its schemas do not forbid other properties, so that alternatives overlap: `oneOf` would refuse what is right.
        self._components: Schema = _any_of({"schemas": document["components"]["schemas"]})

    def check(self, value: object, schema_name: str) -> None:
        schema = self._components["schemas"][schema_name]
        error = best_match(self._validator(schema).iter_errors(value))
        assert error is None, f"{schema_name}{error.json_path[1:]}: {error.message}"
        unknown = list(self._unknown(value, [schema], schema_name))
        assert not unknown, f"fields that OpenAI does not have: {', '.join(unknown)}"

    def _validator(self, schema: Schema) -> Draft202012Validator:
        return Draft202012Validator({"allOf": [schema], "components": self._components})

    def _unknown(self, value: object, schemas: list[Schema], where: str) -> Iterator[str]:
        """Yield each property that none of the schemas that apply to `value` knows."""
        applied = [part for schema in schemas for part in self._applied(value, schema)]
        if isinstance(value, list):
            items = [part["items"] for part in applied if "items" in part]
            for place, one in enumerate(value):
                yield from self._unknown(one, items, f"{where}[{place}]")
        elif isinstance(value, dict):
            closed = any(part.get("properties") for part in applied)
            for name, inner in value.items():
                known = list(_property(applied, name))
                if known:
                    yield from self._unknown(inner, known, f"{where}.{name}")
                elif closed:
                    yield f"{where}.{name}"

    def _applied(self, value: object, schema: Schema) -> Iterator[Schema]:
        """Yield `schema` and what it refers to, with only those alternatives that `value` matches."""
        yield schema
        if "$ref" in schema:
            yield from self._applied(value, self._components["schemas"][schema["$ref"].rpartition("/")[2]])
        for part in schema.get("allOf", ()):
            yield from self._applied(value, part)
        for part in schema.get("anyOf", ()):
            if self._validator(part).is_valid(value):
                yield from self._applied(value, part)


def _property(applied: list[Schema], name: str) -> Iterator[Schema]:
    for schema in applied:
        other = schema.get("additionalProperties", False)
        if name in schema.get("properties", {}):
            yield schema["properties"][name]
        elif other is not False:
            yield {} if other is True else other


def _any_of(node: Any) -> Any:
    if isinstance(node, list):
        return [_any_of(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {"anyOf" if name == "oneOf" else name: _any_of(inner) for name, inner in node.items()}


@cache
def _checked(path: str) -> ApiDescription:
    return ApiDescription(_read(path))


@cache
def _read(path: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return read
