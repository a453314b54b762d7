"""Anthropic's own client, through a gateway, on a real engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message, MessageParam, TextBlock, ToolUseBlock
from redis.asyncio import Redis

from support.anthropic_client import WEATHER
from support.gateway_stack import KEY, GatewayStack, gateway_stack
from support.replica_caller import MODEL, ReplicaCaller
from tokenyard.core.replica import Replica

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio]

GREEDY = {"temperature": 0}
ASK: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
async def gateway(redis: Redis, tmp_path: Path, caller: ReplicaCaller, base_model: Path) -> AsyncIterator[GatewayStack]:
    cluster = caller.cluster
    async with gateway_stack(
        redis, tmp_path, replicas=0, meter_secret=cluster.meter_secret, bearer=cluster.bearer
    ) as stack:
        stack.models.base = msgspec.structs.replace(
            stack.models.base,
            id=MODEL,
            path=str(base_model),
            context_length=1024,
            template_tokens=32,
            template_tokens_per_message=8,
        )
        stack.replicas.listed = [Replica(caller.target.name, MODEL, caller.target.url)]
        yield stack


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key=KEY, base_url=gateway.url, max_retries=0) as client:
        yield client


async def test_an_answer_whole_and_streamed(
    gateway: GatewayStack, client: AsyncAnthropic, caller: ReplicaCaller
) -> None:
    """And both witnesses count what the client is told."""
    whole = await client.messages.create(model=MODEL, max_tokens=12, messages=ASK, extra_body=GREEDY)
    async with client.messages.stream(model=MODEL, max_tokens=12, messages=ASK, extra_body=GREEDY) as stream:
        streamed = await stream.get_final_message()
    assert [block.to_dict() for block in whole.content] == [block.to_dict() for block in streamed.content]
    assert "Paris" in str(whole.content)
    for answer, settled in zip((whole, streamed), await gateway.settled(2), strict=True):
        usage = answer.usage
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == settled.usage.prompt_tokens
        assert usage.output_tokens == settled.usage.completion_tokens
        assert (await caller.report(settled.claims.attempt)).usage == settled.usage
    count = await client.messages.count_tokens(model=MODEL, messages=ASK)
    assert 0 <= count.input_tokens - (whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)) <= 40


async def test_a_stop_sequence_is_told(client: AsyncAnthropic) -> None:
    stops = ["xyz", "Paris"]
    whole = await client.messages.create(
        model=MODEL, max_tokens=12, messages=ASK, extra_body=GREEDY, stop_sequences=stops
    )
    async with client.messages.stream(
        model=MODEL, max_tokens=12, messages=ASK, extra_body=GREEDY, stop_sequences=stops
    ) as stream:
        streamed = await stream.get_final_message()
    for answer in (whole, streamed):
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "Paris")
        assert "Paris" not in str(answer.content)


async def test_a_begun_answer_is_continued(client: AsyncAnthropic) -> None:
    begun: MessageParam = {"role": "assistant", "content": "The capital of France is"}
    answer = await client.messages.create(model=MODEL, max_tokens=4, messages=[*ASK, begun], extra_body=GREEDY)
    (block,) = answer.content
    assert isinstance(block, TextBlock)
    assert block.text.strip().startswith("Paris")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_used_and_answered(client: AsyncAnthropic, stream: bool) -> None:
    said: list[MessageParam] = [{"role": "user", "content": "How is the weather in Paris?"}]
    answer = await _uses_a_tool(client, said, stream)
    assert answer.stop_reason == "tool_use"
    use = answer.content[-1]
    assert isinstance(use, ToolUseBlock)
    assert (use.name, set(use.input)) == ("weather", {"city"})
    result: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "It rains."}],
    }
    more: list[MessageParam] = [*said, {"role": "assistant", "content": answer.content}, result]
    told = await client.messages.create(model=MODEL, max_tokens=8, messages=more, tools=[WEATHER], extra_body=GREEDY)
    assert told.usage.output_tokens > 0


async def _uses_a_tool(client: AsyncAnthropic, said: list[MessageParam], stream: bool) -> Message:
    if not stream:
        return await client.messages.create(
            model=MODEL, max_tokens=64, messages=said, tools=[WEATHER], tool_choice={"type": "any"}, extra_body=GREEDY
        )
    async with client.messages.stream(
        model=MODEL, max_tokens=64, messages=said, tools=[WEATHER], tool_choice={"type": "any"}, extra_body=GREEDY
    ) as streamed:
        return await streamed.get_final_message()
