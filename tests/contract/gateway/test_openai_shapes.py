"""Every reply, event and error against OpenAI's own words and our own description: no field missing, none besides."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import ClientResponse, ClientSession
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject

from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Behaviour
from support.gateway_stack import CHAT, HELLO, KEY, GatewayStack
from support.openai_schema import ApiDescription, check_openai_schema, check_openai_type
from tokenyard.gateway.endpoints.openapi import schemas

COMPLETIONS = "/v1/completions"
USAGE = {"stream_options": {"include_usage": True}}
TYPES: dict[str, tuple[type, str, str]] = {
    "chat.completion": (ChatCompletion, "CreateChatCompletionResponse", "ChatCompletion"),
    "chat.completion.chunk": (ChatCompletionChunk, "CreateChatCompletionStreamResponse", "ChatCompletionChunk"),
    "text_completion": (Completion, "CreateCompletionResponse", "Completion"),
}
OURS = ApiDescription({"components": {"schemas": schemas()}})
Check = Callable[[dict[str, Any]], None]


def _types(reply: dict[str, Any]) -> None:
    if "error" in reply:
        check_openai_type(reply["error"], ErrorObject)
        OURS.check(reply, "ErrorBody")
        return
    type_, _, ours = TYPES[reply["object"]]
    OURS.check(reply, ours)
    check_openai_type(_as_a_whole(reply), type_)


def _schema(reply: dict[str, Any]) -> None:
    name = "ErrorResponse" if "error" in reply else TYPES[reply["object"]][1]
    check_openai_schema(_as_a_whole(reply), name)


def _as_a_whole(reply: dict[str, Any]) -> dict[str, Any]:
    """Return an event of a completion with null filled in as in a whole one.

    OpenAI sends null before the end, but the type and the schema, which whole replies and events share, do not say so.
    """
    if reply.get("object") != "text_completion":
        return reply
    choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in reply["choices"]]
    told = {name: value for name, value in reply.items() if (name, value) != ("usage", None)}
    return {**told, "choices": choices}


each_check = pytest.mark.parametrize("check", [_types, _schema])


@each_check
@pytest.mark.parametrize("more", [{}, {"n": 2}, {"max_tokens": 2}], ids=["plain", "n", "short"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_whole_replies(gateway: GatewayStack, check: Check, path: str, more: dict[str, object]) -> None:
    gateway.server.behaviour.cached_tokens = 2
    async with ClientSession() as session:
        response = await gateway.post(session, _body(path, **more), path)
        assert response.status == 200
        check(await response.json())


@each_check
@pytest.mark.parametrize("options", [{}, USAGE], ids=["without usage", "with usage"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_events(gateway: GatewayStack, check: Check, path: str, options: dict[str, object]) -> None:
    gateway.server.behaviour.cached_tokens = 2
    async with ClientSession() as session:
        events = await _events(await gateway.post(session, _body(path, stream=True, **options), path))
    for event in events:
        check(event)


async def test_the_usage_event(gateway: GatewayStack) -> None:
    gateway.server.behaviour.cached_tokens = 2
    async with ClientSession() as session:
        events = await _events(await gateway.post(session, _body(CHAT, stream=True, **USAGE)))
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 8,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert all(event["usage"] is None for event in events[:-1])


@each_check
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"surprise": 1}, 400),
        ({"max_tokens": 2040}, 400),
        ({"model": "nothing"}, 404),
        ({"messages": [{"role": "user", "content": "x" * 100_000}]}, 413),
    ],
    ids=["unknown field", "too long", "no model", "too large"],
)
async def test_refusals(gateway: GatewayStack, check: Check, body: dict[str, object], status: int) -> None:
    async with ClientSession() as session:
        response = await gateway.post(session, {**_body(CHAT), **body})
        assert response.status == status
        check(await response.json())


@each_check
@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_a_replicas_refusals(gateway: GatewayStack, check: Check, status: int) -> None:
    gateway.server.behaviour = Behaviour(status=status, body=b'{"error":{"message":"no","code":400}}')
    async with ClientSession() as session:
        response = await gateway.post(session, _body(CHAT))
        assert response.status == status
        check(await response.json())


@each_check
@pytest.mark.parametrize("key", ["ty-unknown", "ty-operator"])
async def test_wrong_keys(gateway: GatewayStack, check: Check, key: str) -> None:
    async with ClientSession() as session:
        response = await session.post(gateway.url + CHAT, json={}, headers={"authorization": f"Bearer {key}"})
        assert response.status in (401, 403)
        check(await response.json())


@each_check
async def test_wrong_addresses(gateway: GatewayStack, check: Check) -> None:
    async with ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        for method, path, status in (("GET", CHAT, 405), ("POST", "/v1/nothing", 404)):
            response = await session.request(method, gateway.url + path)
            assert response.status == status
            check(await response.json())


@each_check
async def test_limits(gateway: GatewayStack, check: Check) -> None:
    gateway.limit(requests_per_minute=1)
    async with ClientSession() as session:
        await gateway.post(session, _body(CHAT))
        response = await gateway.post(session, _body(CHAT))
        assert response.status == 429
        check(await response.json())


@each_check
async def test_a_stream_that_fails_ends_in_an_error(gateway: GatewayStack, check: Check) -> None:
    gateway.server.behaviour.cut_at = 2
    async with ClientSession() as session:
        response = await gateway.post(session, _body(CHAT, stream=True))
        events = [orjson.loads(line[6:]) for line in (await response.read()).split(b"\n\n") if line]
    assert "error" in events[-1]
    check(events[-1])


def _body(path: str, **more: object) -> dict[str, object]:
    given: dict[str, object] = {"messages": HELLO} if path == CHAT else {"prompt": "say hello to me"}
    return {"model": BASE.id, **given, **more}


async def _events(response: ClientResponse) -> list[dict[str, Any]]:
    assert response.status == 200
    *events, done, rest = (await response.read()).split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events]
