"""Messages whose client leaves and whose replica fails: told in Anthropic's words, and charged like chats."""

from collections.abc import AsyncIterator

import anthropic
import pytest
from anthropic import AsyncAnthropic, AsyncStream
from anthropic.types import RawMessageStreamEvent

from support.anthropic_client import HI, WEATHER, call
from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Behaviour
from support.gateway_stack import KEY, GatewayStack, until
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key=KEY, base_url=gateway.url, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("taken", [2, 3, 9])
async def test_leaving_in_a_stream(gateway: GatewayStack, client: AsyncAnthropic, taken: int) -> None:
    gateway.server.behaviour = Behaviour(tokens=500, token_delay_s=0.01)
    stream = await client.messages.create(model=BASE.id, max_tokens=500, messages=HI, stream=True)
    async for _ in stream:
        taken -= 1
        if not taken:
            break
    await stream.close()
    (settled,) = await gateway.settled()
    await until(lambda: gateway.server.log[0].aborted)
    assert settled.outcome is Outcome.CLIENT_LEFT
    assert 1 <= settled.usage.completion_tokens <= gateway.server.log[0].completion_tokens < 100
    await gateway.nothing_is_held()


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour(cut_at=3), "model server failed"),
        (Behaviour(error_at=3), "had an error"),
        (Behaviour(end_at=3), "had an error"),
    ],
    ids=["lost", "error", "ended without an end"],
)
async def test_a_stream_that_fails_ends_in_an_error(
    gateway: GatewayStack, client: AsyncAnthropic, behaviour: Behaviour, said: str
) -> None:
    gateway.server.behaviour = behaviour
    stream = await client.messages.create(model=BASE.id, max_tokens=30, messages=HI, stream=True)
    seen: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match=said) as failed:
        await _read(stream, seen)
    assert failed.value.type == "api_error"
    assert failed.value.body["request_id"] == stream.response.headers["request-id"]  # type: ignore[index]
    assert seen.count("content_block_delta") == 3
    assert "message_stop" not in seen
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.REPLICA_LOST
    assert settled.usage == TokenUsage(4, 3) == gateway.server.log[0].usage
    await gateway.nothing_is_held()


async def _read(stream: AsyncStream[RawMessageStreamEvent], seen: list[str]) -> None:
    async for event in stream:
        seen.append(event.type)


async def test_lost_amid_the_input_of_a_tool(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.server.behaviour.says(*call(0, "weather", '{"city', '": "Paris"', "}"))
    gateway.server.behaviour.cut_at = 2
    stream = await client.messages.create(model=BASE.id, max_tokens=30, messages=HI, tools=[WEATHER], stream=True)
    with pytest.raises(anthropic.APIStatusError):
        await _read(stream, [])
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage.completion_tokens) == (Outcome.REPLICA_LOST, 2)


async def test_an_answer_without_usage_is_not_given_away(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.server.behaviour.tells_usage = False
    with pytest.raises(anthropic.InternalServerError):
        await client.messages.create(model=BASE.id, max_tokens=30, messages=HI)
    stream = await client.messages.create(model=BASE.id, max_tokens=30, messages=HI, stream=True)
    assert [event.type async for event in stream][-1] == "message_stop"
    first, second = await gateway.settled(2)
    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.COMPLETED)
    assert second.usage == TokenUsage(0, 8)
