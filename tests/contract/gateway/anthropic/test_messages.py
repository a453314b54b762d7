"""`POST /v1/messages`, as the real `anthropic` client sees it."""

import asyncio

import anthropic
import msgspec
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Base64ImageSourceParam, MessageParam, TextBlock
from openai import AsyncOpenAI
from pydantic import BaseModel

from support.anthropic_client import HI
from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, GatewayStack
from support.request_bodies import image, image_data
from tokenyard.core.models import ImagesSpec
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome


class Capital(BaseModel):
    city: str


def _text(content: object) -> str:
    assert isinstance(content, list)
    (block,) = content
    assert isinstance(block, TextBlock)
    return block.text


async def test_a_whole_answer(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.server.behaviour.cached_tokens = 3
    raw = await client.messages.with_raw_response.create(model=BASE.id, max_tokens=30, messages=HI)
    answer = await raw.parse()
    assert _text(answer.content) == "".join(f"word{at} " for at in range(1, 9))
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", BASE.id)
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (1, 3, 0)
    assert usage.output_tokens == 8
    request = raw.headers["request-id"]
    assert request == raw.headers["x-request-id"]
    assert answer.id == request.replace("req_", "msg_")
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage == TokenUsage(4, 8, 3)
    assert settled.claims.attempt == f"{request}.1"
    assert settled.claims.endpoint == "/v1/messages"
    await gateway.nothing_is_held()


async def test_a_stream(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.server.behaviour.cached_tokens = 3
    async with client.messages.stream(model=BASE.id, max_tokens=30, messages=HI) as stream:
        texts = [text async for text in stream.text_stream]
        answer = await stream.get_final_message()
    assert texts == [f"word{at} " for at in range(1, 9)]
    assert _text(answer.content) == "".join(texts)
    assert answer.stop_reason == "end_turn"
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (1, 3, 8)
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage == TokenUsage(4, 8, 3)


async def test_the_events_of_a_stream(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.server.behaviour.tokens = 2
    stream = await client.messages.create(model=BASE.id, max_tokens=30, messages=HI, stream=True)
    kinds = [event.type async for event in stream]
    delta = "content_block_delta"
    begun, ended = ["message_start", "content_block_start"], ["content_block_stop", "message_delta", "message_stop"]
    assert kinds == [*begun, delta, delta, *ended]


async def test_tokens_that_are_too_few(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    answer = await client.messages.create(model=BASE.id, max_tokens=2, messages=HI)
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 2)
    async with client.messages.stream(model=BASE.id, max_tokens=2, messages=HI) as stream:
        assert (await stream.get_final_message()).stop_reason == "max_tokens"


async def test_a_stop_sequence(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.server.behaviour.stopped_by = "END"
    stops = ["END", "STOP"]
    answer = await client.messages.create(model=BASE.id, max_tokens=30, messages=HI, stop_sequences=stops)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "END")
    async with client.messages.stream(model=BASE.id, max_tokens=30, messages=HI, stop_sequences=stops) as stream:
        answer = await stream.get_final_message()
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "END")
    assert [sent.body["stop"] for sent in gateway.server.log] == [stops, stops]


async def test_everything_that_is_taken(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    await client.messages.create(
        model=BASE.id,
        max_tokens=30,
        messages=[{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}],
        system=[{"type": "text", "text": "b", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        cache_control={"type": "ephemeral"},
        metadata={"user_id": "u"},
        service_tier="standard_only",
        thinking={"type": "disabled"},
        extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 40},  # the client knows no field of these any more
    )
    sent = gateway.server.log[0].body
    assert sent["messages"] == [{"role": "system", "content": "b"}, {"role": "user", "content": "a"}]
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["max_tokens"]) == (0.5, 0.9, 40, 30)
    assert not set(sent) & {"metadata", "service_tier", "thinking", "user", "safety_identifier", "stop"}


async def test_an_image_is_shown_to_a_model_that_sees(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    source: Base64ImageSourceParam = {"type": "base64", "media_type": "image/png", "data": image_data()}
    seen: list[MessageParam] = [
        {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]}
    ]
    with pytest.raises(anthropic.BadRequestError, match="does not take images"):
        await client.messages.create(model=BASE.id, max_tokens=30, messages=seen)
    gateway.models.base = msgspec.structs.replace(BASE, images=ImagesSpec(tokens=100))
    await client.messages.create(model=BASE.id, max_tokens=30, messages=seen)
    (sent,) = gateway.server.log
    assert sent.body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": image()}},
                {"type": "text", "text": "What is this?"},
            ],
        }
    ]
    await gateway.settled()


async def test_what_was_said_goes_back(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    """An answer is given back as the client holds it, whole or from a stream."""
    gateway.server.behaviour.tokens = 2
    first = await client.messages.create(model=BASE.id, max_tokens=30, messages=HI)
    talk: list[MessageParam] = [*HI, {"role": "assistant", "content": first.content}, *HI]
    async with client.messages.stream(model=BASE.id, max_tokens=30, messages=talk) as stream:
        second = await stream.get_final_message()
    await client.messages.create(
        model=BASE.id, max_tokens=30, messages=[*talk, {"role": "assistant", "content": second.content}, *HI]
    )
    said = [message["content"] for message in gateway.server.log[-1].body["messages"]]
    assert said == ["say hello to me", "word1 word2 ", "say hello to me", "word1 word2 ", "say hello to me"]


async def test_the_beginning_of_an_answer_is_continued(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    begun: list[MessageParam] = [*HI, {"role": "assistant", "content": "Hello,"}]
    await client.messages.create(model=BASE.id, max_tokens=30, messages=begun)
    sent = gateway.server.log[0].body
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    assert sent["messages"][-1] == {"role": "assistant", "content": "Hello,"}


async def test_an_answer_after_a_schema(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.server.behaviour.says({"content": '{"city":'}, {"content": ' "Paris"}'})
    answer = await client.messages.parse(model=BASE.id, max_tokens=30, messages=HI, output_format=Capital)
    assert answer.parsed_output == Capital(city="Paris")
    shape = gateway.server.log[0].body["response_format"]
    assert shape["json_schema"]["schema"]["properties"]["city"]["type"] == "string"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_costs_what_a_chat_does(gateway: GatewayStack, client: AsyncAnthropic, stream: bool) -> None:
    gateway.server.behaviour.cached_tokens = 2
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as chats:
        answer = await chats.chat.completions.create(model=BASE.id, messages=HELLO, max_tokens=5, stream=stream)
        if stream:
            assert [chunk async for chunk in answer]  # type: ignore[union-attr]
    await gateway.settled(1)
    before = (await gateway.budget()).pending
    message = await client.messages.create(model=BASE.id, messages=HI, max_tokens=5, stream=stream)
    if stream:
        assert [event async for event in message]  # type: ignore[union-attr]
    chat, asked = await gateway.settled(2)
    assert asked.usage == chat.usage == TokenUsage(4, 5, 2)
    assert asked.outcome is chat.outcome is Outcome.COMPLETED
    assert (await gateway.budget()).pending == 2 * before > 0


def _ask(url: str) -> str:
    with Anthropic(api_key=KEY, base_url=url, max_retries=0) as client:
        return _text(client.messages.create(model=BASE.id, max_tokens=1, messages=HI).content)


async def test_the_synchronous_client(gateway: GatewayStack) -> None:
    assert await asyncio.to_thread(_ask, gateway.url) == "word1 "
