"""However a conversation looks: its parts are all of it, and what is left out leaves calls and outputs together."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from support.fakes.gateway_ports import BASE
from tokenyard.gateway.endpoints.chat_messages import ChatMessage
from tokenyard.gateway.endpoints.responses.body import ResponseBody
from tokenyard.gateway.endpoints.table import RESPONSES

CALLS = st.sampled_from("abc")
ITEMS = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "assistant", "system", "developer"]),
        st.text(max_size=9),
    )
    | CALLS.map(lambda call: {"type": "function_call", "call_id": call, "name": "f", "arguments": "{}"})
    | CALLS.map(lambda call: {"type": "function_call_output", "call_id": call, "output": "x"}),
    min_size=1,
    max_size=12,
)


def _read(items: list[Any], **more: object) -> ResponseBody:
    body = RESPONSES.parse(orjson.dumps({"model": "m", "input": items, "truncation": "auto", **more}))
    assert isinstance(body, ResponseBody)
    return body


@given(ITEMS, st.booleans(), st.integers(0, 12))
def test_what_is_left_is_counted_as_what_was_not_left_out(items: list[Any], tools: bool, number: int) -> None:
    offered = [{"type": "function", "name": "f", "parameters": {"type": "object"}}] if tools else []
    body = _read(items, tools=offered, instructions="be brief")
    bounds = [part.bound for part in body.parts(BASE)]
    assert [prompt.bound for prompt in body.prompts(BASE)] == [sum(bounds)]
    number = min(number, len(bounds) - 1)
    body.leave_out(number)
    assert [prompt.bound for prompt in body.prompts(BASE)] == [sum(bounds[number:])]
    assert _read(items).sent(BASE, 1)["messages"] == _read(items, truncation="disabled").sent(BASE, 1)["messages"]


@given(ITEMS, st.integers(0, 12))
def test_instructions_stay_and_so_does_the_end_and_no_call_is_parted(items: list[Any], number: int) -> None:
    body = _read(items)
    before = list(body.chat.messages)
    body.leave_out(min(number, len(body.parts(BASE)) - 1))
    after = body.chat.messages
    assert [one for one in before if one.role == "system"] == [one for one in after if one.role == "system"]
    said = [one for one in before if one.role != "system"]
    assert said[-1:] == [one for one in after if one.role != "system"][-1:]
    there = {id(one) for one in after}
    gone = [one for one in before if id(one) not in there]
    assert all(id(output) in there for output in _outputs(before, after))
    assert not any(id(output) in there for output in _outputs(before, gone))


def _outputs(conversation: list[ChatMessage], callers: list[ChatMessage]) -> list[ChatMessage]:
    """Return the outputs of calls that `callers` made, each of the last call before it with its id."""
    made = {id(one) for one in callers}
    latest: dict[str, bool] = {}
    found = []
    for message in conversation:
        latest.update((call.id, id(message) in made) for call in message.tool_calls or ())
        if message.role == "tool" and latest.get(message.tool_call_id or "", False):
            found.append(message)
    return found


def test_parts_are_there_where_they_are_wanted() -> None:
    assert _read([{"role": "user", "content": "x"}], truncation="disabled").parts(BASE) == []
    assert len(_read([{"role": "user", "content": "x"}]).parts(BASE)) == 1
