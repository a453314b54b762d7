"""Two tools called in one answer, through every endpoint that has tools, as the real clients hold them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message, TextBlock, ToolUseBlock
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageFunctionToolCall
from openai.types.chat.chat_completion_message_function_tool_call import Function
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
)

from support.anthropic_client import HI, WEATHER, call
from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, GatewayStack
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome

SAYS = [
    {"content": "Let me look."},
    *call(0, "weather", '{"city": "Par', 'is"}'),
    *call(1, "weather", '{"city": "Rome"}'),
]
PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'
CHAT_TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": dict(WEATHER["input_schema"]), "strict": True},
}
TOOL: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": dict(WEATHER["input_schema"]),
    "strict": True,
}
either_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncOpenAI]:
    gateway.server.behaviour.says(*SAYS)
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


async def _is_metered(gateway: GatewayStack) -> None:
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(4, len(SAYS)))
    (sent,) = gateway.server.log
    assert [tool["function"]["name"] for tool in sent.body["tools"]] == ["weather"]
    assert sent.body["parallel_tool_calls"] is True


@either_way
async def test_chat_completions(gateway: GatewayStack, client: AsyncOpenAI, stream: bool) -> None:
    asked: dict[str, Any] = {"model": BASE.id, "messages": HELLO, "tools": [CHAT_TOOL], "parallel_tool_calls": True}
    if stream:
        async with client.chat.completions.stream(**asked) as streamed:
            choice = (await streamed.get_final_completion()).choices[0].to_dict()
        message = choice["message"]
        assert isinstance(message, dict)
        calls = [{name: one[name] for name in ("id", "function", "type")} for one in message["tool_calls"]]
        for one in calls:
            one["function"].pop("parsed_arguments", None)
        told = [ChatCompletionMessageFunctionToolCall.model_validate(one) for one in calls]
        content, finish = message["content"], choice["finish_reason"]
    else:
        answer = (await client.chat.completions.create(**asked)).choices[0]
        told, content, finish = answer.message.tool_calls or [], answer.message.content, answer.finish_reason
    assert (content, finish) == ("Let me look.", "tool_calls")
    assert told == [
        ChatCompletionMessageFunctionToolCall(
            id=f"call_{place}", function=Function(name="weather", arguments=arguments), type="function"
        )
        for place, arguments in enumerate((PARIS, ROME))
    ]
    await _is_metered(gateway)


@either_way
async def test_responses(gateway: GatewayStack, client: AsyncOpenAI, stream: bool) -> None:
    asked: dict[str, Any] = {"model": BASE.id, "input": "say hello to me", "tools": [TOOL], "parallel_tool_calls": True}
    if stream:
        events = [event async for event in await client.responses.create(**asked, stream=True)]
        answer = events[-1].response
        pieces = [event for event in events if isinstance(event, ResponseFunctionCallArgumentsDeltaEvent)]
        assert [(one.output_index, one.delta) for one in pieces] == [(1, '{"city": "Par'), (1, 'is"}'), (2, ROME)]
        done = [event for event in events if isinstance(event, ResponseFunctionCallArgumentsDoneEvent)]
        assert [(one.output_index, one.arguments) for one in done] == [(1, PARIS), (2, ROME)]
        items = [event.item for event in events if isinstance(event, ResponseOutputItemDoneEvent)]
        assert items == answer.output
    else:
        answer = await client.responses.create(**asked)
    assert isinstance(answer, Response)
    message, *calls = answer.output
    assert isinstance(message, ResponseOutputMessage)
    assert answer.output_text == "Let me look."
    assert calls == [
        ResponseFunctionToolCall(
            id=one.id,
            call_id=f"call_{place}",
            name="weather",
            arguments=arguments,
            type="function_call",
            status="completed",
        )
        for place, (one, arguments) in enumerate(zip(calls, (PARIS, ROME), strict=True))
    ]
    assert len({one.id for one in answer.output}) == 3
    await _is_metered(gateway)


@either_way
async def test_messages(gateway: GatewayStack, stream: bool) -> None:
    gateway.server.behaviour.says(*SAYS)
    async with AsyncAnthropic(api_key=KEY, base_url=gateway.url, max_retries=0) as client:
        if stream:
            async with client.messages.stream(model=BASE.id, max_tokens=90, messages=HI, tools=[WEATHER]) as streamed:
                answer: Message = await streamed.get_final_message()
        else:
            answer = await client.messages.create(model=BASE.id, max_tokens=90, messages=HI, tools=[WEATHER])
    text, *uses = answer.content
    assert isinstance(text, TextBlock)
    assert (text.text, answer.stop_reason) == ("Let me look.", "tool_use")
    assert uses == [
        ToolUseBlock(id=f"call_{place}", name="weather", input={"city": city}, type="tool_use")
        for place, city in enumerate(("Paris", "Rome"))
    ]
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(4, len(SAYS)))


@either_way
async def test_one_at_a_time_is_what_the_model_server_is_asked_for(
    gateway: GatewayStack, client: AsyncOpenAI, stream: bool
) -> None:
    answer = await client.chat.completions.create(
        model=BASE.id, messages=HELLO, tools=[CHAT_TOOL], parallel_tool_calls=False, stream=stream
    )
    if stream:
        assert [chunk async for chunk in answer]  # type: ignore[union-attr]
    (sent,) = gateway.server.log
    assert sent.body["parallel_tool_calls"] is False
