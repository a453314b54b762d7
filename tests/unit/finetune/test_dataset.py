"""What a training file may be, line by line."""

import json

import pytest

from support.finetune.rows import rows
from tokenyard.core.datasets.lines import MAX_LINE_BYTES, MAX_PROBLEMS
from tokenyard.finetune.methods.dataset import (
    DatasetReader,
    DatasetSummary,
    InvalidDataset,
)

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
FUNCTION = {"name": "look", "arguments": '{"at": "sky"}'}
CALL = {"id": "1", "type": "function", "function": FUNCTION}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
RESULT = {"role": "tool", "content": "42", "tool_call_id": "1"}


def calling(*calls: object, content: object = None) -> dict[str, object]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def called(arguments: object) -> dict[str, object]:
    return {**CALL, "function": {"name": "look", "arguments": arguments}}


def talk(*calls: object, **more: object) -> dict[str, object]:
    return {"messages": [USER, calling(*calls, **more), RESULT, ANSWER], "tools": [TOOL]}


def _check(data: bytes) -> DatasetSummary:
    check = DatasetReader()
    check.feed(data)
    return check.finish()


def _problems(data: bytes) -> list[str]:
    with pytest.raises(InvalidDataset) as refused:
        _check(data)
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"messages": [{**ANSWER, "weight": 0}, USER, ANSWER]},
        {"messages": [{"role": "system", "content": ""}, USER, ANSWER]},
        {"messages": [{"role": "developer", "content": "Be kind."}, USER, {**ANSWER, "name": "bot"}]},
        {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]},
        {**talk(CALL), "parallel_tool_calls": False},
        talk(CALL, content=""),
        talk(CALL, CALL, content="Looking"),
        talk({"id": "1", "function": {"name": "look", "arguments": ""}}),
        {"messages": [USER, calling(CALL, content="")]},
    ],
)
def test_a_row_that_can_be_learned_from_is_taken(row: object) -> None:
    assert _check(json.dumps(row).encode()).rows == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "must be a JSON object"),
        ({"prompt": "x", "completion": "y"}, "unknown field 'completion'"),
        ({}, '"messages" must be a list'),
        ({"messages": {}}, '"messages" must be a list'),
        ({"messages": ["hello"]}, "messages[0] must be an object"),
        ({"messages": [USER, {"role": "bot", "content": "x"}]}, "messages[1].role must be one of system"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role must be one of"),
        ({"messages": [USER, {"role": "assistant"}]}, "messages[1].content must be text, not None"),
        ({"messages": [USER, {"role": "assistant", "content": "  "}]}, "messages[1].content is empty"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]}, "messages[0].content must be text"),
        ({"messages": [{**USER, "weight": 1}, ANSWER]}, "unknown field 'weight'"),
        ({"messages": [USER, {**ANSWER, "weight": 2}]}, "messages[1].weight must be 0 or 1"),
        ({"messages": [USER, {**ANSWER, "weight": True}]}, "messages[1].weight must be 0 or 1"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "nothing to learn from"),
        ({"messages": [USER]}, "no assistant message"),
        ({"messages": [ANSWER]}, "the first message must not be from the assistant"),
        (
            {"messages": [{**ANSWER, "weight": 0}, USER, ANSWER, USER]},
            "the last message must be from the assistant, not 'user'",
        ),
        ({"messages": [USER, {**ANSWER, "tool_calls": []}]}, "tool_calls must be a list"),
        (talk({**CALL, "function": 1}), "messages[1].tool_calls[0].function: Expected `object`, got `int`"),
        (talk(CALL, {**CALL, "function": {"name": "look"}}), "messages[1].tool_calls[1].function: Object missing"),
        (talk({**CALL, "type": "custom"}), "messages[1].tool_calls[0].type: Invalid enum value"),
        (talk({"id": 1, "function": FUNCTION}), "messages[1].tool_calls[0].id: Expected `str`, got `int`"),
        (talk("look"), "messages[1].tool_calls[0]: Expected `object`, got `str`"),
        ({"messages": [USER, {**calling(), "tool_calls": 1}]}, "messages[1].tool_calls: Expected `array | null`"),
        (talk(called(7)), "messages[1].tool_calls[0].function.arguments: Expected `str`, got `int`"),
        (talk(called("[]")), "messages[1].tool_calls[0].function: `arguments` must be a JSON object"),
        (talk(called('{"at": ')), "messages[1].tool_calls[0].function: `arguments` must be a JSON object"),
        (talk(called("[" * 100_000)), "messages[1].tool_calls[0].function: `arguments` must be a JSON object"),
        (talk(called('{"at": "\\ud800"}')), "messages[1].tool_calls[0].function: `arguments` must be a JSON object"),
        (talk(called('{"at": ' + "9" * 5000 + "}")), "messages[1].tool_calls[0].function: `arguments` must be a JSON"),
        (talk(CALL, content=0), "messages[1].content must be text, not 0"),
        ({"messages": [USER, ANSWER], "tools": ["x"]}, "tools[0]: Expected `object`, got `str`"),
        ({"messages": [USER, ANSWER], "tools": [{"type": "function"}]}, "tools[0]: Object missing required field"),
        ({"messages": [USER, ANSWER], "tools": 1}, "tools: Expected `array | null`, got `int`"),
        ({"messages": [USER, ANSWER], "parallel_tool_calls": 1}, '"parallel_tool_calls" must be'),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: object, said: str) -> None:
    [problem] = _problems(rows(1) + json.dumps(row).encode())
    assert problem.startswith("line 2: ")
    assert said in problem


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "line 1: the file is empty"),
        (b"\n\n\n", "line 1: the file is empty"),
        (rows(1) + b"{", "line 2: not JSON"),
        (rows(1) + b'{"messages": NaN}', "line 2: not JSON"),
        (rows(1) + b'{"messages": "\xff"}', "line 2: not UTF-8 (byte 15 of the line)"),
        (b"\xef\xbb\xbf" + rows(1), "line 1: begins with a byte order mark"),
        (rows(1) + b"\n" + rows(1), "line 2: the line is empty"),
        (b"[" * 100_000, "line 1: not JSON"),
        ('{"messages": []}'.encode("utf-16"), "line 1: not UTF-8 but UTF-16"),
        (rows(2).replace(b"\n", b"\r"), "line 1: a carriage return stands inside"),
        (rows(1) + b"\x00\x01\x02\x7fELF", "line 2: not JSON"),
        (b"x" * (MAX_LINE_BYTES + 1) + b"\n" + rows(1), f"line 1: longer than {MAX_LINE_BYTES} bytes"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(data: bytes, said: str) -> None:
    [problem] = _problems(data)
    assert problem.startswith(said)


def test_the_first_ten_problems_are_enough() -> None:
    problems = _problems(rows(1) + b"nonsense\n" * 100)
    assert [problem.partition(":")[0] for problem in problems] == [f"line {n}" for n in range(2, 2 + MAX_PROBLEMS)]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r", b"\n\n  \n"])
def test_how_the_file_ends_does_not_matter(end: bytes) -> None:
    assert _check(rows(3).rstrip(b"\n") + end).rows == 3


def test_the_bound_covers_calls_as_templates_print_them() -> None:
    row = talk(CALL)
    parsed = {**CALL, "function": {"name": "look", "arguments": {"at": "sky"}}}
    printed = json.dumps(parsed, indent=4) + json.dumps([TOOL], indent=4) + "42" + "Hi" + "Hello"
    assert _check(json.dumps(row).encode()).text_tokens >= len(printed)


def test_the_bound_counts_bytes_and_the_template() -> None:
    summary = _check(rows(2, answer="Blåu."))
    assert (summary.rows, summary.messages) == (2, 4)
    text = len(b"Which colour is the sky?") + len("Blåu.".encode())
    assert summary.text_tokens == 2 * text
    assert summary.token_bound(template_tokens=5, template_tokens_per_message=3) == 2 * (text + 5 + 2 * 3)
