"""Bodies of very many values are refused before they are read, whatever their texts hold."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.body_bounds import FREE_BYTES, MAX_ELEMENTS, MAX_MARKS, marks
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS

PART = {"type": "text", "text": ""}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"', "\\", '\\"', '{"a": [1]}', "\\\\"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def _marks(value: Any) -> int:
    """Count the slow way: two for each text, one for each object and array."""
    if isinstance(value, str):
        return 2
    if isinstance(value, dict):
        return 1 + sum(2 + _marks(inner) for inner in value.values())
    return 1 + sum(map(_marks, value)) if isinstance(value, list) else 0


@given(JSON)
def test_marks_in_texts_do_not_count(value: Any) -> None:
    assert marks(json.dumps(value).encode()) == _marks(value)
    assert marks(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == _marks(value)


@given(st.binary())
def test_what_is_no_json_is_counted_too(raw: bytes) -> None:
    assert 0 <= marks(raw) <= len(raw)


HOSTILE: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [PART] * 38}] * 4000},
    {"messages": [{"role": "user", "content": "x"}], "metadata": [{}] * 1_000_000},
    {"messages": [{"role": "user", "content": "x"}], "logit_bias": {str(number): 1 for number in range(300_000)}},
    {"messages": [{"role": "user", "content": "x"}], "tools": [[]] * 1_000_000},
]


@pytest.mark.parametrize("fields", HOSTILE, ids=["parts", "metadata", "bias", "tools"])
def test_a_body_of_very_many_values(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        CHAT.parse(json.dumps({"model": "m", **fields}).encode())
    assert refused.value.code == "too_many_values"


def test_a_prompt_of_very_many_tokens() -> None:
    with pytest.raises(InvalidRequest) as refused:
        COMPLETIONS.parse(b'{"model":"m","prompt":[%b0]}' % (b"0," * (MAX_ELEMENTS + 1)))
    assert refused.value.code == "too_many_values"


@pytest.mark.parametrize("text", ['{"a": ["b", "c"]}, ' * 200_000, "\\" * 1_000_000, '"' * 1_000_000])
def test_a_long_text_may_hold_anything(text: str) -> None:
    CHAT.parse(json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode())


def test_so_may_very_many_tokens() -> None:
    COMPLETIONS.parse(json.dumps({"model": "m", "prompt": [[1] * 8000] * 128}).encode())


def test_as_many_messages_parts_and_tools_as_each_may_hold() -> None:
    parts = {"role": "user", "content": [PART] * 4096}
    CHAT.parse(json.dumps({"model": "m", "messages": [*[{"role": "user", "content": "x"}] * 4000, parts]}).encode())


def test_small_bodies_are_not_looked_through() -> None:
    """They cannot hold many values; the bound must not be what they end on."""
    assert FREE_BYTES <= 2 * MAX_MARKS
