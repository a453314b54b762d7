"""Tools through `POST /v1/messages`, as the real `anthropic` client sees them."""

import json

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message, MessageParam, TextBlock, ToolChoiceParam, ToolUseBlock

from support.anthropic_client import HI, WEATHER, call, error_of
from support.fakes.gateway_ports import BASE
from support.gateway_stack import GatewayStack

SAYS = [
    {"content": "Let me "},
    {"content": "look."},
    *call(0, "weather", '{"city"', ': "Par', 'is"}'),
    *call(1, "weather", '{"city": "Rome"}'),
]


async def _answer(client: AsyncAnthropic, messages: list[MessageParam], stream: bool) -> Message:
    if not stream:
        return await client.messages.create(model=BASE.id, max_tokens=90, messages=messages, tools=[WEATHER])
    async with client.messages.stream(model=BASE.id, max_tokens=90, messages=messages, tools=[WEATHER]) as streamed:
        return await streamed.get_final_message()


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_used_and_their_results_go_back(
    gateway: GatewayStack, client: AsyncAnthropic, stream: bool
) -> None:
    gateway.server.behaviour.says(*SAYS)
    answer = await _answer(client, HI, stream)
    assert answer.stop_reason == "tool_use"
    text, paris, rome = answer.content
    assert isinstance(text, TextBlock)
    assert text.text == "Let me look."
    assert isinstance(paris, ToolUseBlock)
    assert (paris.id, paris.name, paris.input) == ("call_0", "weather", {"city": "Paris"})
    assert isinstance(rome, ToolUseBlock)
    assert (rome.id, rome.name, rome.input) == ("call_1", "weather", {"city": "Rome"})
    results: MessageParam = {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": paris.id, "content": "sunny"},
            {
                "type": "tool_result",
                "tool_use_id": rome.id,
                "content": [{"type": "text", "text": "none"}],
                "is_error": True,
            },
            {"type": "text", "text": "And?"},
        ],
    }
    await _answer(client, [*HI, {"role": "assistant", "content": answer.content}, results], stream)
    asked, called, *told = gateway.server.log[-1].body["messages"]
    assert asked == {"role": "user", "content": "say hello to me"}
    assert called["content"] == "Let me look."
    assert [json.loads(one["function"]["arguments"]) for one in called["tool_calls"]] == [paris.input, rome.input]
    assert told == [
        {"role": "tool", "content": "sunny", "tool_call_id": "call_0"},
        {"role": "tool", "content": "Error: none", "tool_call_id": "call_1"},
        {"role": "user", "content": "And?"},
    ]
    first, second = await gateway.settled(2)
    assert first.usage.completion_tokens == second.usage.completion_tokens == len(SAYS)


@pytest.mark.parametrize(
    ("choice", "sent", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}, None),
        ({"type": "none"}, "none", None),
    ],
    ids=["auto", "any", "tool", "none"],
)
async def test_the_choice_of_tools(
    gateway: GatewayStack, client: AsyncAnthropic, choice: ToolChoiceParam, sent: object, parallel: bool | None
) -> None:
    await client.messages.create(model=BASE.id, max_tokens=9, messages=HI, tools=[WEATHER], tool_choice=choice)
    body = gateway.server.log[0].body
    assert (body["tool_choice"], body.get("parallel_tool_calls")) == (sent, parallel)
    (tool,) = body["tools"]
    function = {"name": "weather", "description": WEATHER["description"], "parameters": WEATHER["input_schema"]}
    # Where it has to be used, its input has to be one.
    forced = choice["type"] in ("any", "tool")
    assert tool == {"type": "function", "function": {**function, **({"strict": True} if forced else {})}}


async def test_a_tool_that_is_not_there(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.messages.create(
            model=BASE.id, max_tokens=9, messages=HI, tools=[WEATHER], tool_choice={"type": "tool", "name": "other"}
        )
    assert "no tool of the name 'other'" in error_of(refused.value)["error"]["message"]
    assert gateway.server.log == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_very_long_input_of_a_tool(gateway: GatewayStack, client: AsyncAnthropic, stream: bool) -> None:
    long = ["x" * 1000] * 900
    gateway.server.behaviour.says(*call(0, "weather", '{"city": "', *long, '"}'))
    if stream:
        async with client.messages.stream(model=BASE.id, max_tokens=1000, messages=HI, tools=[WEATHER]) as streamed:
            pieces = [event.partial_json async for event in streamed if event.type == "input_json"]
        given = json.loads("".join(pieces))
    else:
        answer = await client.messages.create(model=BASE.id, max_tokens=1000, messages=HI, tools=[WEATHER])
        (block,) = answer.content
        assert isinstance(block, ToolUseBlock)
        given = block.input
    assert given == {"city": "".join(long)}


async def test_an_input_that_was_cut_short(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    """Nothing of it is lost, and the reason says that it is not to be used."""
    gateway.server.behaviour.says(*call(0, "weather", '{"city": "Pa', 'ris"}'))
    answer = await client.messages.create(model=BASE.id, max_tokens=2, messages=HI, tools=[WEATHER])
    (block,) = answer.content
    assert isinstance(block, ToolUseBlock)
    assert block.input == {"INVALID_JSON": '{"city": "Pa'}
    assert answer.stop_reason == "max_tokens"
    async with client.messages.stream(model=BASE.id, max_tokens=2, messages=HI, tools=[WEATHER]) as stream:
        assert (await stream.get_final_message()).stop_reason == "max_tokens"
