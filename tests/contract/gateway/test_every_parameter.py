"""Every parameter that OpenAI documents is honoured or refused by its name; a new one makes this test fail."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

from support.fakes.gateway_ports import BASE
from support.gateway_stack import CHAT as CHAT_PATH
from support.gateway_stack import HELLO, GatewayStack
from support.openai_schema import SCHEMA_VARIABLE
from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.openapi import schemas
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, Endpoint

Body = dict[str, Any]

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
OBJECT = {"type": "json_schema", "json_schema": {"name": "o", "schema": {"type": "object"}, "strict": True}}
NAMED = {"type": "function", "function": {"name": "clock"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
ASKED = {"include_usage": True, "continuous_usage_stats": True}

# What a parameter's value makes of the request that a model server gets.
SENT_BY_BOTH: dict[str, tuple[Body, Body]] = {
    "frequency_penalty": ({"frequency_penalty": -1.5}, {"frequency_penalty": -1.5}),
    "logit_bias": ({"logit_bias": {"5": -100}}, {"logit_bias": {"5": -100}}),
    "max_tokens": ({"max_tokens": 7}, {"max_tokens": 7}),
    "model": ({}, {}),  # the name that was resolved, put in by the relay
    "n": ({"n": 3}, {"n": 3}),
    "presence_penalty": ({"presence_penalty": 2}, {"presence_penalty": 2}),
    "seed": ({"seed": 11}, {"seed": 11}),
    "stop": ({"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
    "stream": ({"stream": True}, {"stream": True, "stream_options": ASKED}),
    "temperature": ({"temperature": 0.3}, {"temperature": 0.3}),
    "top_p": ({"top_p": 0.4}, {"top_p": 0.4}),
}
SENT: dict[str, dict[str, tuple[Body, Body]]] = {
    CHAT.path: {
        **SENT_BY_BOTH,
        "logprobs": ({"logprobs": True}, {"logprobs": True}),
        "max_completion_tokens": ({"max_completion_tokens": 9}, {"max_tokens": 9}),
        "messages": ({"messages": HELLO}, {"messages": HELLO}),
        "parallel_tool_calls": (
            {"parallel_tool_calls": False, "tools": [WEATHER]},
            {"parallel_tool_calls": False, "tools": [WEATHER]},
        ),
        "response_format": ({"response_format": OBJECT}, {"response_format": OBJECT}),
        "tool_choice": (
            {"tool_choice": ALLOWED, "tools": [WEATHER, CLOCK]},
            {"tool_choice": "required", "tools": [CLOCK]},
        ),
        "tools": ({"tools": [WEATHER, CLOCK]}, {"tools": [WEATHER, CLOCK]}),
        "top_logprobs": ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    },
    COMPLETIONS.path: {
        **SENT_BY_BOTH,
        "echo": ({"echo": True}, {"echo": True}),
        "logprobs": ({"logprobs": 2}, {"logprobs": 2}),
        "prompt": ({"prompt": [[1, 2], [3]]}, {"prompt": [[1, 2], [3]]}),
    },
}
# What shows in the answer or in the books; each has a test below.
ANSWERED = {
    CHAT.path: {"safety_identifier", "service_tier", "stream_options", "user"},
    COMPLETIONS.path: {"stream_options", "user"},
}
# One value says what is done anyway, and any other is refused.
ALREADY_SO: dict[str, dict[str, tuple[object, object]]] = {
    CHAT.path: {
        "modalities": (["text"], ["text", "audio"]),
        "prompt_cache_retention": ("in_memory", "24h"),
        "reasoning_effort": ("none", "low"),
        "verbosity": ("medium", "high"),
    },
    COMPLETIONS.path: {"best_of": (1, 2), "suffix": ("", "the end")},
}
# Changes nothing that a client could tell, and is described so.
HINTS: dict[str, set[str]] = {CHAT.path: {"prompt_cache_key"}, COMPLETIONS.path: set()}
REFUSED: dict[str, dict[str, object]] = {
    CHAT.path: {
        "audio": {"voice": "alloy", "format": "wav"},
        "function_call": "auto",
        "functions": [{"name": "f"}],
        "moderation": {"model": "omni-moderation-latest"},
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_options": {"mode": "explicit"},
        "web_search_options": {},
    },
    COMPLETIONS.path: {},
}
# The test of stored chat completions shows what these do.
STORED = {CHAT.path: {"metadata", "store"}, COMPLETIONS.path: set[str]()}

BOTH = pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS], ids=["chat", "completions"])


def _documented(endpoint: Endpoint) -> set[str]:
    """Return what OpenAI's Python client and, where it is at hand, OpenAI's own description know."""
    chat = endpoint is CHAT
    module = chat_create_params if chat else completion_create_params
    names = set(module.CompletionCreateParamsBase.__annotations__) | {"stream"}
    if path := os.environ.get(SCHEMA_VARIABLE):
        components = json.loads(Path(path).read_text(encoding="utf-8"))["components"]["schemas"]
        names |= _properties(components, f"Create{'Chat' if chat else ''}CompletionRequest")
    return names


def _properties(components: Body, name: str) -> set[str]:
    schema = components[name]
    parts = [schema, *schema.get("allOf", ())]
    inherited = (_properties(components, part["$ref"].rpartition("/")[2]) for part in parts if "$ref" in part)
    return {field for part in parts for field in part.get("properties", ())}.union(*inherited)


def _body(endpoint: Endpoint, **more: object) -> Body:
    return {"model": BASE.id, endpoint.input: HELLO if endpoint is CHAT else "say hello to me", **more}


def _sent(endpoint: Endpoint, given: Body) -> Body:
    body = endpoint.parse(json.dumps({**_body(endpoint), **given}).encode())
    body.check_model(BASE)
    return body.sent(BASE, BASE.default_max_tokens if body.wanted_tokens is None else body.wanted_tokens)


@BOTH
def test_every_documented_parameter_is_in_one_list(endpoint: Endpoint) -> None:
    path = endpoint.path
    lists = [set(SENT[path]), ANSWERED[path], set(ALREADY_SO[path]), HINTS[path], set(REFUSED[path]), STORED[path]]
    listed = [name for one in lists for name in one]
    assert len(listed) == len(set(listed))
    assert set(listed) == _documented(endpoint)


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, rows in SENT.items() for name in rows])
def test_it_reaches_the_model_server(path: str, name: str) -> None:
    endpoint = CHAT if path == CHAT.path else COMPLETIONS
    given, expected = SENT[path][name]
    sent = _sent(endpoint, given)
    assert {key: sent.get(key) for key in expected} == expected
    assert sent.keys() <= {*_sent(endpoint, {}), *expected}


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, rows in REFUSED.items() for name in rows])
def test_what_is_not_offered_is_refused_by_name(path: str, name: str) -> None:
    endpoint = CHAT if path == CHAT.path else COMPLETIONS
    with pytest.raises(InvalidRequest) as refused:
        _sent(endpoint, {name: REFUSED[path][name]})
    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")
    assert _sent(endpoint, {name: None}) == _sent(endpoint, {})


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, rows in ALREADY_SO.items() for name in rows])
def test_what_is_so_anyway_may_be_asked_for_and_nothing_else(path: str, name: str) -> None:
    endpoint = CHAT if path == CHAT.path else COMPLETIONS
    same, other = ALREADY_SO[path][name]
    assert _sent(endpoint, {name: same}) == _sent(endpoint, {})
    with pytest.raises(InvalidRequest) as refused:
        _sent(endpoint, {name: other})
    assert (refused.value.param or "").startswith(name)


def test_a_hint_is_described_as_one() -> None:
    described = schemas()["ChatBody"]["properties"]
    for name in HINTS[CHAT.path]:
        assert "hint" in json.dumps(described[name])
        assert _sent(CHAT, {name: "x"}) == _sent(CHAT, {})


@BOTH
@pytest.mark.parametrize("name", ["surprise", "reasoning", "input"])
def test_what_openai_does_not_document_is_refused(endpoint: Endpoint, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _sent(endpoint, {name: 1})
    assert (refused.value.param, refused.value.code) == (name, "unknown_parameter")


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
async def test_the_end_user_stands_in_the_books(gateway: GatewayStack, field: str) -> None:
    async with ClientSession() as session:
        response = await gateway.post(session, _body(CHAT, **{field: "ann@exämple.com"}))
        assert response.status == 200
    (settled,) = await gateway.settled()
    assert settled.claims.end_user == "ann@exämple.com"
    (sent,) = gateway.server.log
    assert sent.claims == settled.claims
    assert field not in sent.body


async def test_the_newer_name_of_the_end_user_goes_first(gateway: GatewayStack) -> None:
    async with ClientSession() as session:
        await gateway.post(session, _body(CHAT, user="old", safety_identifier="new"))
        await gateway.post(session, _body(COMPLETIONS, user="old"), COMPLETIONS.path)
    assert [settled.claims.end_user for settled in await gateway.settled(2)] == ["new", "old"]


@pytest.mark.parametrize("field", ["user", "safety_identifier", "prompt_cache_key"])
@pytest.mark.parametrize("value", ["x" * 257, 7], ids=["long", "number"])
def test_an_odd_end_user_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _sent(CHAT, {field: value})
    assert refused.value.param == field


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
def test_the_books_take_no_zero_bytes(field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _sent(CHAT, {field: "a\x00b"})
    assert refused.value.param == field


@pytest.mark.parametrize("tier", ["auto", "default"])
@pytest.mark.parametrize("usage", [False, True])
async def test_the_service_tier_is_told_where_it_was_asked_for(gateway: GatewayStack, tier: str, usage: bool) -> None:
    async with ClientSession() as session:
        whole = await (await gateway.post(session, _body(CHAT, service_tier=tier))).json()
        assert whole["service_tier"] == "default"
        options = {"stream_options": {"include_usage": True}} if usage else {}
        events = await _events(gateway, session, _body(CHAT, service_tier=tier, stream=True, **options))
        assert all(event["service_tier"] == "default" for event in events)
        assert (events[-1]["choices"] == []) is usage
        assert "service_tier" not in await (await gateway.post(session, _body(CHAT))).json()
        assert "service_tier" not in (await _events(gateway, session, _body(CHAT, stream=True)))[0]
    assert all("service_tier" not in sent.body for sent in gateway.server.log)
    assert len({settled.usage for settled in await gateway.settled(4)}) == 1


def test_other_service_tiers_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="scale") as refused:
        _sent(CHAT, {"service_tier": "scale"})
    assert refused.value.param == "service_tier"


@BOTH
async def test_usage_is_told_in_a_stream_where_it_was_asked_for(gateway: GatewayStack, endpoint: Endpoint) -> None:
    body = _body(endpoint, stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    async with ClientSession() as session:
        events = await _events(gateway, session, body, endpoint.path)
    assert events[-1]["usage"]["total_tokens"] == 12


@BOTH
def test_padding_of_events_is_refused(endpoint: Endpoint) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _sent(endpoint, {"stream": True, "stream_options": {"include_obfuscation": True}})
    assert refused.value.param == "stream_options.include_obfuscation"


def test_a_model_that_thinks_cannot_be_told_not_to() -> None:
    body = CHAT.parse(json.dumps(_body(CHAT, reasoning_effort="none")).encode())
    with pytest.raises(InvalidRequest) as refused:
        body.check_model(msgspec.structs.replace(BASE, reasons=True))
    assert refused.value.param == "reasoning_effort"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": ""}}, "function_call"),
        ({"role": "assistant", "content": "x", "audio": {"id": "1"}}, "audio"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "content"),
        ({"role": "user", "content": [{"type": "text", "text": "x", "prompt_cache_breakpoint": {}}]}, "breakpoint"),
        ({"role": "user", "content": "x", "weight": 1}, "weight"),
    ],
)
def test_a_messages_fields_are_refused_by_name(message: Body, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _sent(CHAT, {"messages": [message]})
    assert param in (refused.value.param or "")


@pytest.mark.parametrize("choice", ["auto", "required", NAMED])
def test_a_choice_needs_tools(choice: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _sent(CHAT, {"tool_choice": choice})
    assert refused.value.param == "tool_choice"


@pytest.mark.parametrize("choice", [NAMED, ALLOWED])
def test_a_choice_must_be_among_the_tools(choice: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _sent(CHAT, {"tool_choice": choice, "tools": [WEATHER]})
    assert refused.value.param == "tool_choice"


async def _events(gateway: GatewayStack, session: ClientSession, body: Body, path: str = CHAT_PATH) -> list[Body]:
    response = await gateway.post(session, body, path)
    assert response.status == 200
    *events, done, rest = (await response.read()).split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]
