"""Every refusal, as the real `openai` client sees it: class, status, code, and whether it tries again."""

import asyncio
from collections.abc import AsyncIterator, Callable

import openai
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI, OpenAI

from support.fakes.admission_requests import ORGANIZATION
from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Behaviour
from support.gateway_stack import HELLO, KEY, OTHER, GatewayStack, until
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.budgets import wallet
from tokenyard.core.ids import AdapterId


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


async def test_a_wrong_key(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        await client.with_options(api_key="ty-unknown").chat.completions.create(model=BASE.id, messages=HELLO)
    assert refused.value.code == "invalid_api_key"


async def test_no_key(gateway: GatewayStack) -> None:
    async with ClientSession() as session:
        response = await session.post(f"{gateway.url}/v1/chat/completions", json={})
        assert response.status == 401
        assert response.headers["x-request-id"].startswith("req_")


async def test_an_operators_key(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        await client.with_options(api_key="ty-operator").chat.completions.create(model=BASE.id, messages=HELLO)


async def test_an_unknown_model(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nothing", messages=HELLO)
    assert missing.value.code == "model_not_found"
    name = "ft:test-model:other:x:1"
    gateway.models.fine_tuned[OTHER, name] = AdapterRef(AdapterId("1"), name, "p", "d")
    with pytest.raises(openai.NotFoundError) as foreign:
        await client.chat.completions.create(model=name, messages=HELLO)
    assert foreign.value.message.replace(name, "nothing") == missing.value.message


@pytest.mark.parametrize(
    ("extra", "param", "code"),
    [
        ({"surprise": 1}, "surprise", "unknown_parameter"),
        ({"cache_salt": "x"}, "cache_salt", "unknown_parameter"),
        ({"priority": -1}, "priority", "unknown_parameter"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"n": 1000}, "n", "integer_above_max_value"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x", "oops": 1}]}, "messages[0].oops", "unknown_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "messages[0].content",
            "unsupported_parameter",
        ),
        ({"functions": []}, "functions", "unsupported_parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", None),
        ({"model": 5}, "model", "invalid_type"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
async def test_a_wrong_parameter(
    gateway: GatewayStack, client: AsyncOpenAI, extra: dict[str, object], param: str, code: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.post("/chat/completions", body={"model": BASE.id, "messages": HELLO, **extra}, cast_to=object)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.type == "invalid_request_error"
    assert gateway.server.log == []


@pytest.mark.parametrize("missing", ["model", "messages"])
async def test_a_missing_parameter(client: AsyncOpenAI, missing: str) -> None:
    body = {"model": BASE.id, "messages": HELLO}
    del body[missing]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.message.find(f"Missing required parameter: '{missing}'.") >= 0


async def test_a_body_that_is_not_json(gateway: GatewayStack) -> None:
    async with ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        response = await session.post(f"{gateway.url}/v1/chat/completions", data=b"{not json")
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_a_body_that_is_too_large(gateway: GatewayStack) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    async with ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        declared = await session.post(f"{gateway.url}/v1/chat/completions", data=b" " * 200_000)
        assert declared.status == 413
        streamed = await session.post(f"{gateway.url}/v1/chat/completions", data=pieces())
        assert streamed.status == 413


async def test_a_prompt_that_is_too_long(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=BASE.id, messages=HELLO, max_tokens=2040)
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "messages"
    assert "maximum context length is 2048 tokens" in refused.value.message
    assert gateway.server.log == []


async def test_a_rate_limit_is_tried_again(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.limit(requests_per_minute=1)
    await client.chat.completions.create(model=BASE.id, messages=HELLO)
    with pytest.raises(openai.RateLimitError) as refused:
        await client.chat.completions.create(model=BASE.id, messages=HELLO)
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.type == "requests"
    headers = refused.value.response.headers
    assert headers["x-ratelimit-limit-requests"] == "1"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert float(headers["retry-after"]) >= 1
    assert headers.get("x-should-retry") != "false"


async def test_a_spent_budget_is_not_tried_again(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.budgets.set(wallet(ORGANIZATION), 10)
    with pytest.raises(openai.RateLimitError) as refused:
        await client.with_options(max_retries=3).chat.completions.create(model=BASE.id, messages=HELLO)
    assert refused.value.type == "insufficient_quota"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert gateway.server.log == []
    await gateway.nothing_is_held()


async def test_an_overloaded_server_is_tried_again(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.server.behaviour = Behaviour(status=503, headers={"retry-after": "1"})
    asking = asyncio.create_task(
        client.with_options(max_retries=4).chat.completions.create(model=BASE.id, messages=HELLO)
    )
    await until(lambda: len(gateway.server.log) >= 1)
    gateway.server.behaviour = Behaviour()
    answer = await asking
    assert answer.choices[0].message.content
    assert len(gateway.server.log) >= 2


async def test_what_the_model_server_refuses_is_shown_without_its_inside(
    gateway: GatewayStack, client: AsyncOpenAI
) -> None:
    said = (
        b'{"error":{"message":"top_p must be in (0, 1], got 0.0.","type":"BadRequestError","param":"top_p","code":400}}'
    )
    gateway.server.behaviour = Behaviour(status=400, body=said)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=BASE.id, messages=HELLO, top_p=0)
    assert "top_p must be in (0, 1]" in refused.value.message
    assert refused.value.param == "top_p"
    gateway.server.behaviour.body = b'{"error":{"message":"vllm.engine at /opt/venv/x.py failed"}}'
    with pytest.raises(openai.BadRequestError) as hidden:
        await client.chat.completions.create(model=BASE.id, messages=HELLO)
    assert "/opt" not in hidden.value.message
    assert gateway.replicas.ejected == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("POST", "/v1/nothing", 404), ("GET", "/", 404)],
)
async def test_wrong_addresses(gateway: GatewayStack, method: str, path: str, status: int) -> None:
    async with ClientSession() as session:
        response = await session.request(method, gateway.url + path)
        assert response.status == status
        assert set((await response.json())["error"]) == {"message", "type", "param", "code"}


def _ask(url: str) -> str:
    with OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0) as client:
        stream = client.chat.completions.create(model=BASE.id, messages=HELLO, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


async def test_the_synchronous_client(gateway: GatewayStack) -> None:
    assert (await asyncio.to_thread(_ask, gateway.url)).startswith("word1 word2 ")


def _nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("own", [_nested(300), [1] * 30_000], ids=["deep", "large"])
@pytest.mark.parametrize(
    ("param", "around"),
    [
        ("tools", lambda own: [{"type": "function", "function": {"name": "f", "parameters": {"a": own}}}]),
        (
            "response_format",
            lambda own: {"type": "json_schema", "json_schema": {"name": "s", "schema": {"a": own}}},
        ),
    ],
    ids=["tools", "response_format"],
)
async def test_json_of_the_clients_own_is_bounded(
    gateway: GatewayStack, own: object, param: str, around: Callable[[object], object]
) -> None:
    body = {"model": BASE.id, "messages": HELLO, param: around(own)}
    async with ClientSession() as session:
        response = await gateway.post(session, body)
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param
    assert gateway.server.log == []
    assert await gateway.events() == []
