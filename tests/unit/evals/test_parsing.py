"""JSON of a client's own shape that could not be given back."""

from typing import Any

import pytest

from tokenyard.core.schemas import MAX_DEPTH, json_problem


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "ä\u0000"]}, nested(MAX_DEPTH - 1), 2**63], ids=str)
def test_what_can_be_stored_is_taken(value: Any) -> None:
    assert json_problem(value) is None


@pytest.mark.parametrize(
    "value", [nested(MAX_DEPTH), {"a": float("nan")}, [float("inf")], "\ud800", {"\udfff": 1}], ids=ascii
)
def test_what_cannot_be_stored_is_told(value: Any) -> None:
    assert json_problem(value) is not None
