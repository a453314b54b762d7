"""What reaches the model server, what the reply carries, and the other endpoints."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageFunctionToolCallParam

from support.fakes.admission_requests import ORGANIZATION
from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, OTHER_KEY, SALT_SECRET, GatewayStack
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.models import SamplingDefaults
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.header import cache_salt

FINE_TUNED = "ft:test-model:acme:bot:1"


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


async def test_the_request_is_rebuilt(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model=BASE.id,
        messages=[{"role": "developer", "content": "be brief"}, *HELLO],
        max_completion_tokens=5,
        temperature=0.5,
        seed=7,
        stop="x",
        user="me",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        extra_headers={"X-Vllm-Priority": "-9", "X-Request-Id": "mine", "X-Client-Request-Id": "mine"},
    )
    (sent,) = gateway.server.log
    assert sent.body == {
        "model": BASE.id,
        "messages": [{"role": "system", "content": "be brief"}, *HELLO],
        "max_tokens": 5,
        "temperature": 0.5,
        "seed": 7,
        "stop": "x",
        "cache_salt": cache_salt(ORGANIZATION, SALT_SECRET),
    }
    (settled,) = await gateway.settled()
    assert sent.headers["x-request-id"] == settled.claims.attempt
    assert "mine" not in str(sent.headers)
    assert "x-vllm-priority" not in sent.headers
    assert sent.claims == settled.claims
    assert sent.claims.admitted_at_ms > 0
    assert sent.claims.budgets


async def test_a_stream_always_asks_for_usage(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=BASE.id, messages=HELLO, stream=True)
    async for _ in stream:
        pass
    (sent,) = gateway.server.log
    assert sent.body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert sent.body["max_tokens"] == BASE.default_max_tokens


async def test_organizations_have_different_salts(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    for key in (KEY, OTHER_KEY):
        await client.with_options(api_key=key).chat.completions.create(model=BASE.id, messages=HELLO)
    first, second = gateway.server.log
    assert first.body["cache_salt"] != second.body["cache_salt"]


async def test_the_replys_headers(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.limit(requests_per_minute=10, tokens_per_minute=1000)
    raw = await client.chat.completions.with_raw_response.create(model=BASE.id, messages=HELLO)
    headers = raw.headers
    (settled,) = await gateway.settled()
    assert headers["x-request-id"] == settled.claims.attempt.split(".")[0]
    assert headers["openai-organization"] == ORGANIZATION
    assert headers["openai-version"] == "2020-10-01"
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["x-ratelimit-limit-requests"] == "10"
    assert headers["x-ratelimit-remaining-requests"] == "9"
    assert int(headers["x-ratelimit-remaining-tokens"]) < 1000
    assert raw.parse().id.endswith(settled.claims.attempt)


async def test_a_fine_tuned_model(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    adapter = AdapterRef(AdapterId("1"), FINE_TUNED, "adapters/org_test/1", "digest")
    gateway.models.fine_tuned[ORGANIZATION, FINE_TUNED] = adapter
    answer = await client.chat.completions.create(model=FINE_TUNED, messages=HELLO)
    assert answer.model == FINE_TUNED
    (settled,) = await gateway.settled()
    assert settled.claims.adapter == adapter
    assert settled.claims.model == FINE_TUNED
    assert settled.claims.base_model == BASE.id


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices(gateway: GatewayStack, client: AsyncOpenAI, stream: bool) -> None:
    answer = await client.chat.completions.create(model=BASE.id, messages=HELLO, n=3, max_tokens=2, stream=stream)
    assert isinstance(answer, AsyncStream) is stream
    if isinstance(answer, AsyncStream):
        assert {chunk.choices[0].index async for chunk in answer} == {0, 1, 2}
    (settled,) = await gateway.settled()
    assert settled.usage == TokenUsage(4, 6)


@pytest.mark.parametrize("stream", [False, True])
async def test_completions(gateway: GatewayStack, client: AsyncOpenAI, stream: bool) -> None:
    answer = await client.completions.create(
        model=BASE.id, prompt=["one two", "three"], n=2, max_tokens=3, stream=stream
    )
    assert isinstance(answer, AsyncStream) is stream
    if isinstance(answer, AsyncStream):
        assert {chunk.choices[0].index async for chunk in answer} == {0, 1, 2, 3}
    else:
        assert answer.choices[0].text == "word1 word2 word3 "
    (settled,) = await gateway.settled()
    assert settled.usage == TokenUsage(3, 12)
    assert settled.claims.endpoint == "/v1/completions"


async def test_completions_of_token_ids(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    await client.completions.create(model=BASE.id, prompt=[1, 2, 3])
    (sent,) = gateway.server.log
    assert sent.body["max_tokens"] == 16
    assert sent.body["prompt"] == [1, 2, 3]


async def test_tools_get_through(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    tool: ChatCompletionFunctionToolParam = {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
    }
    call: ChatCompletionMessageFunctionToolCallParam = {
        "id": "1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    await client.chat.completions.create(
        model=BASE.id,
        messages=[
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "done"}]},
        ],
        tools=[tool],
        tool_choice="auto",
        response_format={"type": "json_object"},
        logprobs=True,
        top_logprobs=2,
    )
    (sent,) = gateway.server.log
    assert sent.body["tools"] == [tool]
    assert sent.body["messages"][1]["tool_calls"] == [call]
    assert sent.body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("silent", [{}, {"temperature": None, "top_k": None}], ids=["absent", "null"])
async def test_where_the_client_is_silent_the_model_says_how_to_sample(
    gateway: GatewayStack, client: AsyncOpenAI, silent: dict[str, None]
) -> None:
    gateway.models.base = msgspec.structs.replace(BASE, sampling=SamplingDefaults(temperature=0.2, top_p=0.9, top_k=40))
    await client.chat.completions.create(model=BASE.id, messages=HELLO, top_p=0.5, extra_body=silent)
    await client.completions.create(model=BASE.id, prompt="x", temperature=0)
    chat, completion = (sent.body for sent in gateway.server.log)
    assert (chat["temperature"], chat["top_p"], chat["top_k"]) == (0.2, 0.5, 40)
    assert (completion["temperature"], completion["top_p"]) == (0, 0.9)
    assert "min_p" not in chat
