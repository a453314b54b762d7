"""Responses and their events against OpenAI's own words and our own description; and every field of a request."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession
from openai.types.chat import ChatCompletion
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import TypeAdapter

from support.answers_stand import AnswersStand
from support.fakes.gateway_ports import BASE
from support.fakes.scripted_server import ScriptedServer, called, said
from support.gateway_stack import HELLO, KEY
from support.openai_schema import ApiDescription, check_openai_schema, check_openai_type, openai_description
from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.openapi import schemas
from tokenyard.gateway.endpoints.table import RESPONSES

OURS = ApiDescription({"components": {"schemas": schemas()}})
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,"}
BODY = {"model": BASE.id, "input": "x"}
FULL = BODY | {
    "background": False,
    "include": ["message.output_text.logprobs"],
    "input": [
        {"role": "user", "content": "x"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "y", "annotations": [], "logprobs": []}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "z"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
    ],
    "instructions": "be brief",
    "max_output_tokens": 16,
    "max_tool_calls": 3,
    "metadata": {"a": "b"},
    "parallel_tool_calls": False,
    "prompt_cache_key": "key",
    "prompt_cache_retention": "in_memory",
    "reasoning": {"effort": "none"},
    "safety_identifier": "somebody",
    "service_tier": "auto",
    "store": True,
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "temperature": 0.5,
    "text": {"format": {"type": "json_object"}, "verbosity": "medium"},
    "tool_choice": {"type": "function", "name": "f"},
    "tools": [TOOL],
    "top_logprobs": 2,
    "top_p": 0.5,
    "truncation": "auto",
    "user": "me",
}
"""Every field that is honoured."""
REFUSED: dict[str, Any] = {
    "context_management": [{"type": "compaction"}],
    "conversation": "conv_1",
    "include": ["file_search_call.results"],
    "moderation": {"model": "m"},
    "prompt": {"id": "pmpt_1"},
    "prompt_cache_options": {"ttl": "30m"},
    "prompt_cache_retention": "24h",
    "reasoning": {"effort": "high"},
    "service_tier": "scale",
    "text": {"verbosity": "low"},
    "tool_choice": {"type": "web_search_preview"},
    "tools": [{"type": "web_search"}],
    "top_logprobs": 2,
    "truncation": "middle",
}
"""Every field, or value of one, that is not offered."""
EITHER_WAY = {"model", "previous_response_id"}
"""What other tests show."""


def _documented() -> set[str]:
    components = openai_description()["components"]["schemas"]

    def fields(schema: dict[str, Any]) -> set[str]:
        if "$ref" in schema:
            return fields(components[schema["$ref"].rpartition("/")[2]])
        parts = [fields(part) for part in schema.get("allOf", ())]
        return set(schema.get("properties", ())).union(*parts)

    return fields(components["CreateResponse"])


def test_every_documented_field_is_honoured_or_refused_by_name() -> None:
    documented = _documented()
    assert documented == (FULL.keys() | REFUSED.keys() | EITHER_WAY)
    check_openai_schema(FULL, "CreateResponse")
    OURS.check(FULL, "ResponseBody")
    OURS.check(BODY | {"input": [{"id": "msg_1"}]}, "ResponseBody")
    RESPONSES.parse(orjson.dumps(FULL))
    for name in documented:
        RESPONSES.parse(orjson.dumps(BODY | {name: None} if name not in BODY else BODY))
    for name, value in REFUSED.items():
        with pytest.raises(InvalidRequest) as refused:
            RESPONSES.parse(orjson.dumps(BODY | {name: value}))
        assert (refused.value.param or "").startswith(name)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"surprise": 1}, "surprise"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
        ({"input": [{"role": "user", "content": [IMAGE | {"file_id": "file-1"}]}]}, "input[0].content[0].file_id"),
        ({"input": [{"role": "user", "content": [IMAGE | {"detail": "high"}]}]}, "input[0].content[0].detail"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice.tools"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
            "tool_choice.tools[0].type",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input"),
        ({"max_output_tokens": 15}, "max_output_tokens"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"previous_response_id": "x" * 65}, "previous_response_id"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"background": True, "store": False}, "background"),
        ({"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}, "text.format.name"),
        ({"tools": [{"type": "function", "name": "f", "defer_loading": True}]}, "tools[0].defer_loading"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        RESPONSES.parse(orjson.dumps(BODY | wrong)).referred_items  # noqa: B018
    assert (refused.value.param or "").startswith(param)


def test_a_request_needs_an_input() -> None:
    with pytest.raises(InvalidRequest) as refused:
        RESPONSES.parse(orjson.dumps({"model": BASE.id}))
    assert refused.value.param == "input"


@pytest.fixture
async def session(stand: AnswersStand) -> AsyncIterator[ClientSession]:
    async with ClientSession(stand.gateway.url, headers={"authorization": f"Bearer {KEY}"}) as opened:
        yield opened


def _check_response(reply: dict[str, Any]) -> None:
    OURS.check(reply, "Response")
    check_openai_type(reply, Response)
    check_openai_schema(reply, "Response")


@pytest.mark.parametrize("more", [{}, {**FULL, "stream": False, "stream_options": None}], ids=["plain", "full"])
async def test_whole_replies(stand: AnswersStand, session: ClientSession, more: dict[str, Any]) -> None:
    async with stand.scripted(ScriptedServer([said("x", logprob=-0.5), called(0, name="f", call="c", arguments="{}")])):
        reply = await session.post("/v1/responses", json={**BODY, "tools": [TOOL], **more})
        assert reply.status == 200
        made = await reply.json()
    _check_response(made)
    found = await (await session.get(f"/v1/responses/{made['id']}")).json()
    assert found == made
    _check_response(found)
    items = await (await session.get(f"/v1/responses/{made['id']}/input_items")).json()
    check_openai_type(items, ResponseItemList)
    check_openai_schema(items, "ResponseItemList")


async def test_events(stand: AnswersStand, session: ClientSession) -> None:
    script = [said("x", logprob=-0.5), called(0, name="f", call="c", arguments="{}"), said("y")]
    async with stand.scripted(ScriptedServer(script)):
        reply = await session.post("/v1/responses", json={**BODY, "tools": [TOOL], "stream": True})
        raw = await reply.read()
    *frames, rest = raw.split(b"\n\n")
    assert rest == b""
    for frame in frames:
        name, data = frame.split(b"\n")
        event = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        OURS.check(event, "ResponseEvent")
        TypeAdapter(ResponseStreamEvent).validate_python(event)
        check_openai_schema(event, "ResponseStreamEvent")


async def test_stored_chat_completions(stand: AnswersStand, session: ClientSession) -> None:
    chat = "/v1/chat/completions"
    made = await (await session.post(chat, json={"model": BASE.id, "messages": HELLO, "store": True})).json()
    found = await (await session.get(f"{chat}/{made['id']}")).json()
    assert found == {**made, "metadata": {}}
    del found["metadata"]  # OpenAI's description shows it in examples alone
    check_openai_type(found, ChatCompletion)
    check_openai_schema(found, "CreateChatCompletionResponse")
    page = await (await session.get(chat)).json()
    assert (page["object"], page["first_id"], page["has_more"]) == ("list", made["id"], False)
    deleted = await (await session.delete(f"{chat}/{made['id']}")).json()
    check_openai_schema(deleted, "ChatCompletionDeleted")
    messages = await session.get(f"{chat}/{made['id']}/messages")
    assert messages.status == 404


async def test_what_is_paid_for_and_what_is_kept_are_described_together(stand: AnswersStand) -> None:
    paths = stand.gateway.app.control_plane.openapi()["paths"]
    assert set(paths["/v1/chat/completions"]) == {"get", "post"}
    assert set(paths["/v1/chat/completions/{completion}"]) == {"get", "post", "delete"}
    assert set(paths["/v1/responses/{response}"]) == {"get", "delete"}
