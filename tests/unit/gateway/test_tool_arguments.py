"""What a conversation tells of earlier calls: read as a model server reads it, and counted at its longest."""

import json
from typing import Any

import pytest

from support.fakes.gateway_ports import BASE
from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.chat_contents.tool_arguments import printed, readable
from tokenyard.gateway.endpoints.table import CHAT

NAME = "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize("arguments", ['{"a": [1, 2e9]}', "{}", '{"é": "\\u00e9"}', '{"n": 1' + "0" * 400 + "}"])
def test_an_object_stays_as_it_is(arguments: str) -> None:
    assert readable(arguments, NAME) == arguments


@pytest.mark.parametrize("arguments", ["", "[]", "7", "{", '{"a": NaN}', '{"a": "\\ud800"}', "so what"])
def test_what_is_no_object_counts_as_an_empty_one(arguments: str) -> None:
    assert readable(arguments, NAME) == "{}"


@pytest.mark.parametrize(
    "arguments",
    ['{"a":' * 65 + "1" + "}" * 65, '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", '{"a":[' + "1," * 30_000 + "1]}"],
    ids=["deep", "very deep", "many"],
)
def test_more_than_can_be_printed_is_refused_by_name(arguments: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        CHAT.parse(json.dumps(_talk(arguments)).encode())
    assert refused.value.param == NAME


def test_commas_within_a_text_are_no_values() -> None:
    arguments = json.dumps({"file": 'a,b,"[{' * 30_000})
    assert readable(arguments, NAME) == arguments


@pytest.mark.parametrize(
    "arguments",
    [
        {"a": [1] * 500},
        {"a": [1e15] * 100, "b": [-1e-7, 1e308]},
        {"a": {"b": {"c": [{"d": "é"}] * 50}}},
        {"quote": '"' * 100},
    ],
)
@pytest.mark.parametrize("written", ["plain", "exponents"])
def test_it_is_counted_at_its_longest(arguments: dict[str, Any], written: str) -> None:
    text = json.dumps(arguments, separators=(",", ":"))
    if written == "exponents":
        text = text.replace("1000000000000000.0", "1e15")
    value = json.loads(text)
    for indent in (None, 2, 4):
        assert len(json.dumps(value, indent=indent, ensure_ascii=False)) <= len(printed(text))
    assert len(json.dumps(text)) <= len(printed(text))
    [prompt] = CHAT.parse(json.dumps(_talk(text)).encode()).prompts(BASE)
    as_a_whole = json.dumps([{"type": "function", "id": "1", "function": {"name": "f", "arguments": value}}], indent=4)
    assert prompt.bound >= len(as_a_whole)


def _talk(arguments: str) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    return {"model": BASE.id, "messages": messages}
