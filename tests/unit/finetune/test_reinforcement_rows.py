"""What a row that is to be answered may be."""

from typing import Any

import pytest

from support.finetune.rows import questions, rows
from tokenyard.core.chat_rows import RowProblem
from tokenyard.core.datasets.reinforcement_rows import check_reinforcement_row
from tokenyard.core.graders.shapes import parsed_grader
from tokenyard.finetune.methods.dataset import DatasetReader, InvalidDataset
from tokenyard.finetune.methods.reinforcement import Reinforcement
from tokenyard.finetune.methods.supervised import Supervised

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
GRADER = parsed_grader(
    {
        "type": "string_check",
        "name": "exact",
        "operation": "eq",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.colours.0.name }}",
    }
)


def row(*messages: object, **more: object) -> dict[str, Any]:
    return {"messages": list(messages), **more}


@pytest.mark.parametrize("role", ["user", "developer", "system"])
def test_a_row_is_a_conversation_and_whatever_its_grader_needs(role: str) -> None:
    asked = row(USER, ANSWER, {"role": role, "content": "Again"}, tools=[TOOL], colours=[{"name": "blue"}], n=None)
    found = check_reinforcement_row(asked, GRADER)
    assert found.item == asked
    assert [(one.role, one.content) for one in found.as_chat().messages[2:]] == [(role, "Again"), ("assistant", "")]
    assert not any(one.weight for one in found.as_chat().messages)


def test_its_size_is_that_of_its_prompt_and_the_opening_of_an_answer() -> None:
    found = Reinforcement().check_row(row(USER, tools=[TOOL], reference="x" * 1000))
    answered = Supervised().check_row(row(USER, {**ANSWER, "content": "x"}, tools=[TOOL]))
    assert (found.messages, found.text_tokens + 1) == (answered.messages, answered.text_tokens)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], 'must be a JSON object with "messages"'),
        (row(), '"messages" must be a list with at least one message'),
        (row("Hi"), "messages[0] must be an object"),
        (row({"role": "user", "content": " "}), "messages[0].content is empty"),
        (row({**ANSWER, "weight": 0}, USER), "messages[0] must have no weight"),
        (row(USER, ANSWER), "the last message must be from one of user, developer, system"),
        (row(USER, tools=1), "tools: Expected"),
        (row(USER, parallel_tool_calls=1), '"parallel_tool_calls" must be'),
        (row(USER), "the grader refers to item.colours.0.name, which the row does not have"),
        (row(USER, colours=[]), "the grader refers to item.colours.0.name"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(wrong: object, said: str) -> None:
    with pytest.raises(RowProblem) as problem:
        check_reinforcement_row(wrong, GRADER)
    assert said in str(problem.value)


def test_a_file_whose_first_row_asks_for_an_answer_is_reinforcements() -> None:
    reader = DatasetReader()
    reader.feed(questions(3))
    assert (reader.finish().method, reader.finish().messages) == ("reinforcement", 6)
    for data, said in (
        (questions(1) + rows(1), "line 2: the last message must be from one of user"),
        (rows(1) + questions(1), "line 2: the row has the unknown field 'answer'"),
    ):
        reader = DatasetReader()
        reader.feed(data)
        with pytest.raises(InvalidDataset, match=said):
            reader.finish()
