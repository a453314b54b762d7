"""What a row of preferences may be."""

from typing import Any

import msgspec
import pytest

from tokenyard.core.chat_rows import RowProblem
from tokenyard.core.datasets.preference_rows import PreferenceRow
from tokenyard.finetune.methods.dpo import Dpo
from tokenyard.finetune.methods.method import RowSize
from tokenyard.finetune.methods.supervised import Supervised

USER = {"role": "user", "content": "Hi"}
BETTER = {"role": "assistant", "content": "Hello"}
WORSE = {"role": "assistant", "content": "What?"}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def row(**changed: Any) -> dict[str, Any]:
    plain = {"input": {"messages": [USER]}, "preferred_output": [BETTER], "non_preferred_output": [WORSE]}
    return {name: value for name, value in {**plain, **changed}.items() if value is not None}


def sizes(*messages: object, **more: object) -> RowSize:
    return Supervised().check_row({"messages": list(messages), **more})


def test_a_row_is_as_large_as_its_two_conversations() -> None:
    found = Dpo().check_row(row(input={"messages": [USER], "tools": [TOOL]}, preferred_output=[CALLING]))
    better, worse = sizes(USER, CALLING, tools=[TOOL]), sizes(USER, WORSE, tools=[TOOL])
    assert found == RowSize(better.messages + worse.messages, better.text_tokens + worse.text_tokens)


def test_of_both_conversations_only_the_answer_is_learnt() -> None:
    talk = [USER, {"role": "assistant", "content": "Yes?"}, USER]
    chats = msgspec.convert(row(input={"messages": talk}), PreferenceRow).chats()
    for chat, answer in zip(chats, ("Hello", "What?"), strict=True):
        weights = [(one.content, one.weight) for one in chat.messages if one.role == "assistant"]
        assert weights == [("Yes?", 0), (answer, 1)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], 'must be a JSON object with "input"'),
        (row(more=1), "the row has the unknown field 'more'"),
        (row(input=[]), '"input" must be an object with "messages"'),
        (row(input={"messages": [USER], "model": "x"}), "input has the unknown field 'model'"),
        (row(input={"messages": []}), '"input.messages" must be a list with at least one message'),
        (row(input={"messages": [USER, BETTER]}), "the last message of the input must not be from the assistant"),
        (row(input={"messages": [{**BETTER, "weight": 0}, USER]}), "input.messages[0] must have no weight"),
        (row(input={"messages": ["Hi"]}), "input.messages[0] must be an object with role and content"),
        (row(input={"messages": [{"role": "user", "content": " "}]}), "input.messages[0].content is empty"),
        (row(input={"messages": [USER], "tools": [{"type": "function"}]}), "input.tools[0]: "),
        (row(preferred_output=None), '"preferred_output" must be a list of one message'),
        (row(non_preferred_output=[BETTER, WORSE]), '"non_preferred_output" must be a list of one message'),
        (row(non_preferred_output=[USER]), "non_preferred_output[0] must be a message of the assistant"),
        (row(preferred_output=[{**BETTER, "weight": 1}]), "preferred_output[0] must have no weight"),
        (row(preferred_output=[{**BETTER, "content": ""}]), "preferred_output[0].content is empty"),
        (row(non_preferred_output=[{**WORSE, "mood": 1}]), "non_preferred_output[0] (role assistant) has the unknown"),
        (row(non_preferred_output=[{**CALLING, "tool_calls": [{"id": 1}]}]), "non_preferred_output[0].tool_calls[0]"),
        (row(non_preferred_output=[BETTER]), "both outputs are the same"),
    ],
)
def test_a_wrong_row_is_refused_by_the_place_that_is_wrong(wrong: object, said: str) -> None:
    with pytest.raises(RowProblem) as refused:
        Dpo().check_row(wrong)
    assert str(refused.value).startswith(said)
