"""The chat endpoint, as the real `openai` client sees it."""

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI

from support.fakes.admission_requests import KEY as KEY_ID
from support.fakes.admission_requests import ORGANIZATION, PROJECT
from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, GatewayStack
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


async def test_a_whole_answer(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=BASE.id, messages=HELLO, max_tokens=3)
    assert answer.choices[0].message.content == "word1 word2 word3 "
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage == TokenUsage(4, 3)
    assert settled.claims.organization == ORGANIZATION
    assert settled.claims.project == PROJECT
    assert settled.claims.key == KEY_ID
    await gateway.nothing_is_held()
    assert (await gateway.budget()).pending == 4 * 100 + 3 * 1000


async def test_a_stream(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=BASE.id, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "".join(
        f"word{at} " for at in range(1, 9)
    )
    assert all(chunk.usage is None for chunk in chunks)
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage == TokenUsage(4, 8)


async def test_a_stream_with_usage(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.server.behaviour.cached_tokens = 2
    stream = await client.chat.completions.create(
        model=BASE.id, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    (settled,) = await gateway.settled()
    assert settled.usage == TokenUsage(4, 8, 2)
