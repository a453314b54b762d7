"""Every refusal, as the real `anthropic` client sees it: class, type, id, and whether it tries again."""

import asyncio

import anthropic
import pytest
from aiohttp import ClientSession
from anthropic import AsyncAnthropic
from prometheus_client import CollectorRegistry

from support.anthropic_client import HI, error_of
from support.fakes.admission_requests import ORGANIZATION
from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Behaviour
from support.gateway_stack import KEY, GatewayStack, until
from support.servers.asgi import running
from tokenyard.core.budgets import wallet
from tokenyard.gateway.endpoints.anthropic.unpaid_replies import errors_at
from tokenyard.metering.events import Outcome
from tokenyard.web.edge.bounds import HttpBounds
from tokenyard.web.edge.http_protocol import BoundedConfig

MESSAGES = "/v1/messages"


async def _ask(client: AsyncAnthropic, **more: object) -> None:
    body = {"model": BASE.id, "max_tokens": 9, "messages": HI, **more}
    await client.post(MESSAGES, body=body, cast_to=object)


async def test_wrong_keys(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        await _ask(client.with_options(api_key="ty-unknown"))
    assert error_of(unknown.value)["error"]["type"] == "authentication_error"
    with pytest.raises(anthropic.PermissionDeniedError) as operators:
        await _ask(client.with_options(api_key="ty-operator"))
    assert error_of(operators.value)["error"]["type"] == "permission_error"


@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}], ids=["own", "bearer"])
@pytest.mark.parametrize("path", [MESSAGES, f"{MESSAGES}/count_tokens"])
async def test_both_headers_carry_a_key(gateway: GatewayStack, headers: dict[str, str], path: str) -> None:
    """And a version of the API that nobody knows is no reason to refuse."""
    body = {"model": "nothing", "max_tokens": 9, "messages": HI}
    if path != MESSAGES:
        del body["max_tokens"]
    async with ClientSession() as session:
        response = await session.post(
            gateway.url + path, json=body, headers={**headers, "anthropic-version": "2099-01-01"}
        )
        assert response.status == 404, "the key is known, the model is not"
        assert (await response.json())["error"]["type"] == "not_found_error"
        nobody = await session.post(gateway.url + path, json=body)
        assert nobody.status == 401


async def test_an_unknown_model(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as refused:
        await _ask(client, model="nothing")
    error = error_of(refused.value)["error"]
    assert error["type"] == "not_found_error"
    assert refused.value.error_code == "model_not_found"


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"surprise": 1}, "'surprise'"),
        ({"n": 2}, "'n'"),
        ({"mcp_servers": []}, "'mcp_servers'"),
        ({"container": "c"}, "'container'"),
        ({"max_tokens": 0}, "'max_tokens'"),
        ({"temperature": 1.5}, "'temperature'"),
        ({"top_p": 2}, "'top_p'"),
        ({"top_k": -1}, "'top_k'"),
        ({"stop_sequences": ["a"] * 5}, "'stop_sequences'"),
        ({"stop_sequences": [""]}, "'stop_sequences"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "'thinking.type'"),
        ({"output_config": {"effort": "high"}}, "'output_config.effort'"),
        ({"service_tier": "priority"}, "'service_tier'"),
        ({"metadata": {"name": "x"}}, "'metadata.name'"),
        ({"messages": []}, "'messages'"),
        ({"messages": [{"role": "user", "content": []}]}, "'messages[0].content'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "'messages[0].role'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "'messages[0].content[0].source",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "'messages[0].content[0].type'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "i", "name": "n", "input": {}}]}]},
            "'messages[0].content[0]'",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "i"}]}]},
            "'messages[0].content[0]'",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "i", "name": "n", "input": {}}]}
                ]
            },
            "'messages[0]'",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "'tools[0]"),
        ({"tools": [{"name": "x"}]}, "'tools[0].input_schema'"),
        ({"tool_choice": {"type": "auto"}}, "'tool_choice'"),
        ({"tool_choice": {"type": "tool"}}, "'tool_choice.name'"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
async def test_a_wrong_parameter(
    gateway: GatewayStack, client: AsyncAnthropic, extra: dict[str, object], named: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        await _ask(client, **extra)
    error = error_of(refused.value)["error"]
    assert error["type"] == "invalid_request_error"
    assert named in error["message"]
    assert gateway.server.log == []
    assert await gateway.events() == []


@pytest.mark.parametrize("missing", ["model", "messages", "max_tokens"])
async def test_a_missing_parameter(client: AsyncAnthropic, missing: str) -> None:
    body = {"model": BASE.id, "messages": HI, "max_tokens": 9}
    del body[missing]
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.post(MESSAGES, body=body, cast_to=object)
    assert f"'{missing}'" in error_of(refused.value)["error"]["message"]


async def test_a_prompt_that_is_too_long(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        await _ask(client, max_tokens=2040)
    assert refused.value.error_code == "context_length_exceeded"
    assert "maximum context length is 2048 tokens" in error_of(refused.value)["error"]["message"]


async def test_a_body_that_is_too_large(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as refused:
        await _ask(client, system="x" * 100_000)
    assert refused.value.status_code == 413
    assert error_of(refused.value)["error"]["type"] == "request_too_large"


async def test_a_rate_limit_is_tried_again(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.limit(requests_per_minute=1)
    await _ask(client)
    with pytest.raises(anthropic.RateLimitError) as refused:
        await _ask(client)
    assert error_of(refused.value)["error"]["type"] == "rate_limit_error"
    assert float(refused.value.response.headers["retry-after"]) >= 1
    assert refused.value.response.headers.get("x-should-retry") != "false"


async def test_the_client_tries_again_by_itself(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    body = b'{"error":{"message":"busy","type":"server_error"}}'
    gateway.server.behaviour = Behaviour(status=429, body=body, headers={"retry-after": "1"})
    asking = asyncio.create_task(_ask(client.with_options(max_retries=4)))
    await until(lambda: len(gateway.server.log) >= 1)
    gateway.server.behaviour = Behaviour()
    await asking
    assert len(gateway.server.log) >= 2


async def test_a_spent_budget_is_not_tried_again(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.budgets.set(wallet(ORGANIZATION), 10)
    with pytest.raises(anthropic.RateLimitError) as refused:
        await _ask(client.with_options(max_retries=3))
    assert error_of(refused.value)["error"]["type"] == "billing_error"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"
    await gateway.nothing_is_held()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (Behaviour(status=503), (503, "overloaded_error")),
        (Behaviour(status=500), (500, "api_error")),
        (Behaviour(cut_at=0), (502, "api_error")),
    ],
    ids=["busy", "failed", "lost"],
)
async def test_a_server_that_fails_before_anything_was_said(
    gateway: GatewayStack, client: AsyncAnthropic, behaviour: Behaviour, told: tuple[int, str], stream: bool
) -> None:
    gateway.server.behaviour = behaviour
    await _fails(gateway, client, told, stream=stream)


async def test_a_stream_that_says_an_error_before_a_token(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    gateway.server.behaviour = Behaviour(error_at=0)
    await _fails(gateway, client, (500, "api_error"), stream=True)


async def _fails(gateway: GatewayStack, client: AsyncAnthropic, told: tuple[int, str], *, stream: bool) -> None:
    with pytest.raises(anthropic.InternalServerError) as refused:
        await _ask(client, stream=stream)
    assert (refused.value.status_code, error_of(refused.value)["error"]["type"]) == told
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.FAILED
    await gateway.nothing_is_held()


async def test_wrong_addresses(gateway: GatewayStack) -> None:
    async with ClientSession(headers={"x-api-key": KEY}) as session:
        for method, path, status in (("GET", MESSAGES, 405), ("POST", f"{MESSAGES}/batches", 404)):
            response = await session.request(method, gateway.url + path)
            assert response.status == status
            answer = await response.json()
            assert answer["type"] == "error"
            assert answer["request_id"] == response.headers["request-id"]


async def test_what_is_refused_before_it_reaches_the_app(gateway: GatewayStack) -> None:
    bounds = HttpBounds()
    config = BoundedConfig(
        gateway.app, bounds, CollectorRegistry(), host="127.0.0.1", port=0, shutdown_s=1, errors_at=errors_at
    )
    async with running(gateway.app, config=config) as url, ClientSession() as session:
        for path, kind in ((MESSAGES, "invalid_request_error"), ("/v1/chat/completions", None)):
            response = await session.post(url + path, headers={f"x-{at}": "x" for at in range(200)})
            assert response.status == 431
            answer = await response.json()
            assert answer.get("type") == (None if kind is None else "error")
            if kind is not None:
                assert answer["error"]["type"] == kind
                assert answer["request_id"] == response.headers["request-id"]
