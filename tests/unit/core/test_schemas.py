from typing import Any

import pytest

from tokenyard.core.schemas import SchemaTooLarge, check_schema


def _nested(depth: int) -> Any:
    schema: Any = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def _properties(count: int) -> dict[str, Any]:
    return {"properties": {f"p{at}": {} for at in range(count)}}


@pytest.mark.parametrize(
    ("schema", "over"),
    [
        (_nested(64), "nested more than 64 levels"),
        ([0] * 20_000, "more than 20000 values"),
        ({"anyOf": [_properties(2_501), _properties(2_500)]}, "more than 5000 properties"),
        ({"anyOf": [{"enum": list(range(501))}, {"enum": list(range(500))}]}, "more than 1000 enum values"),
        ({"const": "x" * 60_000, "y" * 4_096: ["x" * 60_000]}, "more than 120000 characters"),
        ({"items": {"pattern": "(" * 4_097}}, "more than 4096 characters in a pattern"),
        ({"patternProperties": {"(" * 4_097: {}}}, "more than 4096 characters in a name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_over_the_bound(schema: object, over: str) -> None:
    with pytest.raises(SchemaTooLarge, match=over):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        *(_nested(63), [0] * 19_999, _properties(5_000), {"enum": list(range(1_000))}, {"pattern": "(" * 4_096}),
        # Of another kind than a schema has: to be refused by those who read schemas.
        *({"enum": 5, "pattern": [], "properties": [1]}, None, True, "text", [], {}),
    ],
    ids=repr,
)
def test_at_the_bound(schema: object) -> None:
    check_schema(schema)
