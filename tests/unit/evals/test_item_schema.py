"""The part of JSON Schema by which items are checked."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tokenyard.evals.item_schema import ItemSchema, ItemSchemaProblem

SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "A question",
    "properties": {
        "question": {"type": "string", "minLength": 1, "maxLength": 5},
        "marks": {"type": ["integer", "null"], "minimum": 0, "maximum": 10},
        "tags": {"type": "array", "items": {"enum": ["a", 1, None, [True], {"a": [2]}]}, "minItems": 1, "maxItems": 2},
        "fixed": {"const": {"a": True}},
        "more": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "none": {"items": False},
    },
    "required": ["question"],
    "additionalProperties": False,
}
ITEMS: list[tuple[dict[str, Any], str | None]] = [
    ({"question": "Sky?", "marks": None, "tags": ["a", 1], "fixed": {"a": True}, "more": {"x": False}}, None),
    ({"question": "Sky?", "marks": 3.0, "none": []}, None),
    ({}, "has no 'question'"),
    ({"question": 1}, "item.question is not of type string"),
    ({"question": ""}, "item.question has fewer characters than 1"),
    ({"question": "longer"}, "item.question has more characters than 5"),
    ({"question": "a", "marks": True}, "item.marks is not of type integer or null"),
    ({"question": "a", "marks": 2.5}, "item.marks is not of type integer or null"),
    ({"question": "a", "marks": -1}, "item.marks is less than 0"),
    ({"question": "a", "marks": 11}, "item.marks is more than 10"),
    ({"question": "a", "tags": []}, "item.tags has fewer items than 1"),
    ({"question": "a", "tags": ["a"] * 3}, "item.tags has more items than 2"),
    ({"question": "a", "tags": [True]}, "item.tags.0 is none of the values of its enum"),
    ({"question": "a", "tags": [1.0, [True]]}, None),
    ({"question": "a", "tags": [{"a": [2.0]}]}, None),
    ({"question": "a", "tags": [[1]]}, "item.tags.0 is none of the values of its enum"),
    ({"question": "a", "fixed": {"a": 1}}, "item.fixed is not the value that it must be"),
    ({"question": "a", "fixed": {"a": False}}, "item.fixed is not the value that it must be"),
    ({"question": "a", "more": {"x": 1}}, "item.more.x is not of type boolean"),
    ({"question": "a", "none": [1]}, "item.none must have no items"),
    ({"question": "a", "other": 1}, "which its schema does not allow"),
]


@pytest.mark.parametrize(("item", "problem"), ITEMS, ids=str)
def test_an_item_is_judged_as_json_schema_judges_it(item: dict[str, Any], problem: str | None) -> None:
    found = ItemSchema(SCHEMA).problem(item)
    assert (found is None) is Draft202012Validator(SCHEMA).is_valid(item)
    assert problem is None if found is None else problem is not None and problem in found


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"type": "array"}, "type"),
        ({"properties": {"a": {"pattern": "(a+)+$"}}}, "properties.a.pattern"),
        ({"properties": {"a": {"type": "text"}}}, "properties.a.type"),
        ({"properties": {"a": []}}, "properties.a"),
        ({"required": "a"}, "required"),
        ({"minLength": True}, "minLength"),
        ({"properties": {"a": {"items": {"$ref": "#"}}}}, "properties.a.items.$ref"),
        ({"enum": list(range(2000))}, ""),
    ],
    ids=str,
)
def test_what_cannot_be_checked_is_refused_by_name(schema: dict[str, Any], param: str) -> None:
    with pytest.raises(ItemSchemaProblem) as refused:
        ItemSchema(schema)
    assert refused.value.param == param


def test_what_a_schema_says_many_times_is_looked_up_once_for_each_value() -> None:
    """Otherwise these would be looked at two thousand million times."""
    inner = {"type": ["integer"] * 9000, "required": ["a"] * 9000, "enum": list(range(1000))}
    schema = ItemSchema({"properties": {"a": {"items": inner}}})
    assert schema.problem({"a": [999] * 100_000}) is None
    assert schema.problem({"a": [{"a": 1}]}) == "item.a.0 is not of type integer"
