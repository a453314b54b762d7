"""OpenAI's own client for Python, and those of its parts that do more than send and read."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, pydantic_function_tool
from pydantic import BaseModel

from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, GatewayStack, until


class Weather(BaseModel):
    """The weather of a city."""

    city: str


TOOL = pydantic_function_tool(Weather, name="weather")


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncOpenAI]:
    gateway.server.behaviour.call = ("weather", '{"city": "Paris"}')
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1") as client:
        yield client


async def test_it_retries_by_itself(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.server.behaviour.status = 503
    answer = asyncio.create_task(client.chat.completions.create(model=BASE.id, messages=HELLO))
    await until(lambda: gateway.server.log)
    gateway.server.behaviour.status = 200
    assert (await answer).choices[0].message.content
    first, second = await gateway.settled(2)
    assert (first.usage.total_tokens, second.usage.total_tokens) == (0, 12)


async def test_errors_have_their_classes(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="nothing", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="ty-wrong").chat.completions.create(model=BASE.id, messages=HELLO)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=BASE.id, messages=HELLO, service_tier="flex")
    assert refused.value.param == "service_tier"


async def test_a_limit_is_an_error_of_its_own(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.limit(requests_per_minute=1)
    once = client.with_options(max_retries=0)
    await once.chat.completions.create(model=BASE.id, messages=HELLO)
    with pytest.raises(openai.RateLimitError) as limited:
        await once.chat.completions.create(model=BASE.id, messages=HELLO)
    assert limited.value.code == "rate_limit_exceeded"


async def test_a_parsed_answer(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.server.behaviour.text = '{"city": "Rome"}'
    answer = await client.chat.completions.parse(model=BASE.id, messages=HELLO, response_format=Weather)
    assert answer.choices[0].message.parsed == Weather(city="Rome")
    (sent,) = gateway.server.log
    assert sent.body["response_format"]["json_schema"]["schema"]["required"] == ["city"]


async def test_a_parsed_call(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.parse(model=BASE.id, messages=HELLO, tools=[TOOL])
    [call] = answer.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == Weather(city="Paris")
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_a_stream_of_events(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.server.behaviour.text = '{"city": "Rome"}'
    async with client.chat.completions.stream(model=BASE.id, messages=HELLO, response_format=Weather) as stream:
        kinds = {event.type async for event in stream}
        answer = await stream.get_final_completion()
    assert {"content.delta", "content.done"} <= kinds
    assert answer.choices[0].message.parsed == Weather(city="Rome")


async def test_a_call_in_a_stream_and_its_result(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model=BASE.id, messages=HELLO, tools=[TOOL]) as stream:
        kinds = [event.type async for event in stream]
        message = (await stream.get_final_completion()).choices[0].message
    assert kinds.count("tool_calls.function.arguments.delta") == 8
    [call] = message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "22"}
    told: Any = [*HELLO, message, result]  # the answer as it is: the client takes back what it gave
    answer = await client.chat.completions.create(model=BASE.id, messages=told, tools=[TOOL])
    assert (answer.choices[0].message.content or "").startswith("word1")
    assert gateway.server.log[-1].body["messages"][-1] == result
