"""The real `anthropic` client and another company's server of chat completions: neither knows of the other."""

from collections.abc import AsyncIterator

import anthropic
import pytest
from anthropic import AsyncAnthropic

from support.anthropic_client import HI, error_of
from support.elsewhere_stack import SOLD, ElsewhereStack, told_outside
from support.fakes.server_elsewhere import THERE, Elsewhere
from support.gateway_stack import HELLO, KEY
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome

SAID = "".join(f"word{number} " for number in range(1, 9))


@pytest.fixture
async def client(stack: ElsewhereStack) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key=KEY, base_url=stack.gateway.url, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_message(stack: ElsewhereStack, client: AsyncAnthropic, streamed: bool) -> None:
    if streamed:
        async with client.messages.stream(model=SOLD, max_tokens=64, messages=HI) as stream:
            message: anthropic.types.Message = await stream.get_final_message()
    else:
        message = await client.messages.create(model=SOLD, max_tokens=64, messages=HI)
    assert message.content[0].type == "text"
    assert (message.model, message.content[0].text, message.stop_reason) == (SOLD, SAID, "end_turn")
    told = message.usage
    assert (told.input_tokens + (told.cache_read_input_tokens or 0), told.output_tokens) == (7, 8)
    assert not list(told_outside(stack.gateway, message.model_dump_json()))
    (settled,) = await stack.gateway.settled()
    assert (settled.outcome, settled.usage, settled.claims.server) == (Outcome.COMPLETED, TokenUsage(7, 8, 2), SOLD)
    (asked,) = stack.server.log
    assert asked.path == "/v1/chat/completions"
    expected: dict[str, object] = {"model": THERE, "messages": HELLO, "max_tokens": 64}
    if streamed:
        expected |= {"stream": True, "stream_options": {"include_usage": True}}
    assert asked.body == expected


async def test_an_end_user_goes_as_a_hash_and_stands_in_our_books(
    stack: ElsewhereStack, client: AsyncAnthropic
) -> None:
    stack.sell(end_users=True)
    await client.messages.create(model=SOLD, max_tokens=64, messages=HI, metadata={"user_id": "jane@example.test"})
    (settled,) = await stack.gateway.settled()
    assert settled.claims.end_user == "jane@example.test"
    assert len(stack.server.log[0].body["user"]) == 32


async def test_a_refusal_is_anthropics(stack: ElsewhereStack, client: AsyncAnthropic) -> None:
    stack.server.behaviour = Elsewhere(status=429, body=b"{}")
    with pytest.raises(anthropic.APIStatusError) as refused:
        await client.messages.create(model=SOLD, max_tokens=64, messages=HI)
    assert error_of(refused.value)["error"]["type"] == "overloaded_error"


async def test_what_only_vllm_does_is_refused_before_it_is_asked(stack: ElsewhereStack, client: AsyncAnthropic) -> None:
    begun: list[anthropic.types.MessageParam] = [*HI, {"role": "assistant", "content": "hello"}]
    with pytest.raises(anthropic.BadRequestError, match="does not continue"):
        await client.messages.create(model=SOLD, max_tokens=64, messages=begun)
    assert stack.server.log == []
    assert await stack.gateway.events() == []
    stack.sell(vllm=True)
    await client.messages.create(model=SOLD, max_tokens=64, messages=begun)
    assert stack.server.log[0].body["continue_final_message"]
