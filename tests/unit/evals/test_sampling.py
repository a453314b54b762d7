"""What a model is asked for a row."""

from typing import Any

import pytest

from tokenyard.evals.runs.data_source import CompletionsSource, data_source_of
from tokenyard.evals.work.sampling import UnaskableRow, question_for


def source_of(messages: dict[str, Any], **sampling: Any) -> CompletionsSource:
    asked: dict[str, Any] = {
        "type": "completions",
        "source": {"type": "file_id", "id": "file-1"},
        "model": "small-model",
        "input_messages": messages,
    }
    found = data_source_of(asked | ({"sampling_params": sampling} if sampling else {}))
    assert isinstance(found, CompletionsSource)
    return found


def template(*contents: Any) -> dict[str, Any]:
    return {"type": "template", "template": [{"role": "user", "content": content} for content in contents]}


def test_templates_are_filled_in_from_the_item() -> None:
    parts = [{"type": "input_text", "text": "{{item.a.b}}"}, "and {{ item.c.0 }}"]
    question = question_for(source_of(template("Say {{ item.a }}", parts)), {"a": {"b": "x"}, "c": [3]})
    assert question.asked["messages"] == [
        {"role": "user", "content": 'Say {"b":"x"}'},
        {"role": "user", "content": "x\nand 3"},
    ]


def test_what_a_row_says_is_no_template() -> None:
    question = question_for(source_of(template("{{ item.a }}")), {"a": "{{ item.b }}", "b": "secret"})
    assert question.asked["messages"] == [{"role": "user", "content": "{{ item.b }}"}]


def test_an_answer_is_drawn_as_openai_documents_it() -> None:
    plain = question_for(source_of(template("a")), {}).asked
    drawn = {name: plain[name] for name in ("temperature", "top_p", "seed")}
    assert drawn == {"temperature": 1, "top_p": 1, "seed": 42}
    assert "response_format" not in plain
    held = question_for(source_of(template("a"), temperature=0, response_format={"type": "json_object"}), {}).asked
    assert (held["temperature"], held["response_format"]) == (0, {"type": "json_object"})


@pytest.mark.parametrize(
    ("messages", "item", "why"),
    [
        (template("{{ item.b }}"), {"a": 1}, "the item has no 'b'"),
        (template("{{ item.a }}"), {"a": "x" * 100_001}, "more than 100000 characters"),
        (template("{{ item.a }}", "{{ item.a }}"), {"a": "x" * 60_000}, "more than 100000 characters"),
        ({"type": "item_reference", "item_reference": "item.b"}, {"a": 1}, "the item has no 'b'"),
        ({"type": "item_reference", "item_reference": "item.a"}, {"a": []}, "not a list of messages"),
        ({"type": "item_reference", "item_reference": "item.a"}, {"a": [{"role": "user"}]}, "role and content"),
    ],
    ids=str,
)
def test_a_row_that_cannot_be_asked_is_told_apart(messages: dict[str, Any], item: dict[str, Any], why: str) -> None:
    with pytest.raises(UnaskableRow, match=why):
        question_for(source_of(messages), item)
