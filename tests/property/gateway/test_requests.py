"""No body, however odd, gets past the table; what does is as described, and every refusal is a clean one."""

import json
from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO
from support.request_bodies import LEAST
from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.chat import ChatBody
from tokenyard.gateway.endpoints.openapi import schemas
from tokenyard.gateway.endpoints.table import CHAT, ENDPOINTS, MESSAGES, RESPONSES, Endpoint

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
DESCRIBED = {
    one.path: Draft202012Validator({**schemas()[one.body.__name__], "components": {"schemas": schemas()}})
    for one in ENDPOINTS
}
# What a begun answer is continued with.
SENT = {
    RESPONSES: {*ChatBody.__struct_fields__},
    MESSAGES: {*ChatBody.__struct_fields__, "continue_final_message", "add_generation_prompt"},
}
NEVER_SENT = {"cache_salt", "priority", "request_id", "kv_transfer_params", "chat_template", "vllm_xargs", "user"}


def bodies(endpoint: Endpoint) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from([*endpoint.body.__struct_fields__, *NEVER_SENT]) | st.text(max_size=10)
    good: dict[str, Any] = {"model": "m", **LEAST[endpoint.path]}
    return st.dictionaries(names, JSON, max_size=4).map(lambda odd: {**good, **odd})


@given(st.sampled_from(ENDPOINTS).flatmap(lambda one: st.tuples(st.just(one), bodies(one))))
def test_only_the_table_gets_through(case: tuple[Endpoint, dict[str, Any]]) -> None:
    endpoint, body = case
    with suppress(InvalidRequest):
        request = endpoint.parse(json.dumps(body).encode())
        if request.referred_items or request.continues is not None:
            return
        sent = request.sent(BASE, 1)
        assert msgspec.json.encode(sent)
        # A ranking is made of scores.
        assert set(sent) <= SENT.get(endpoint, {*endpoint.body.__struct_fields__, "queries"}) - NEVER_SENT
        assert request.wanted_tokens is None or request.wanted_tokens >= 0
        # A refused field at null is as good as absent.
        DESCRIBED[endpoint.path].validate({name: value for name, value in body.items() if value is not None})


MESSAGE_FIELDS = st.sampled_from(["role", "content", "name", "tool_calls", "tool_call_id", "refusal"]) | st.text(
    max_size=5
)
PARTS = st.lists(st.dictionaries(st.sampled_from(["type", "text", "image_url"]), JSON | st.just("text")), max_size=2)


@given(st.lists(st.dictionaries(MESSAGE_FIELDS, JSON | PARTS | st.sampled_from(["user", "tool"])), max_size=3))
def test_odd_messages_are_refused_cleanly(messages: list[Any]) -> None:
    with suppress(InvalidRequest):
        request = CHAT.parse(json.dumps({"model": "m", "messages": messages}).encode())
        assert isinstance(request, ChatBody)
        assert all(message.role in ("system", "user", "assistant", "tool") for message in request.messages)
        DESCRIBED[CHAT.path].validate({"model": "m", "messages": messages})
        assert request.prompts(BASE)[0].bound > 0


BLOCK_FIELDS = st.sampled_from(["type", "text", "id", "name", "input", "tool_use_id", "content", "is_error", "source"])
KINDS = st.sampled_from(["text", "tool_use", "tool_result", "image", "document", "thinking"])
BLOCKS = st.lists(st.dictionaries(BLOCK_FIELDS, KINDS | st.just({}) | JSON, max_size=4), max_size=3)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system"])},
            optional={"content": BLOCKS | st.text(max_size=4), "name": JSON},
        ),
        min_size=1,
        max_size=3,
    ),
    BLOCKS | st.text(max_size=4),
)
def test_odd_blocks_are_refused_cleanly(messages: list[Any], system: object) -> None:
    with suppress(InvalidRequest):
        body = {"model": "m", "max_tokens": 1, "messages": messages, "system": system}
        request = MESSAGES.parse(json.dumps(body).encode())
        DESCRIBED[MESSAGES.path].validate(body)
        assert request.prompts(BASE)[0].bound > 0
        assert all(
            message["role"] in ("system", "user", "assistant", "tool") for message in request.sent(BASE, 1)["messages"]
        )


@given(
    st.dictionaries(
        st.sampled_from(["tools", "tool_choice", "response_format"]),
        JSON | st.lists(st.dictionaries(st.sampled_from(["type", "function"]), JSON | st.just("function"))),
        min_size=1,
    )
)
def test_odd_tools_are_refused_cleanly(odd: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        body = {"model": "m", "messages": HELLO, **odd}
        request = CHAT.parse(json.dumps(body).encode())
        DESCRIBED[CHAT.path].validate(body)
        assert request.prompts(BASE)[0].bound > 0


ITEM_FIELDS = st.sampled_from(["type", "role", "content", "id", "call_id", "name", "arguments", "output"])
ITEM_TYPES = ["message", "function_call", "function_call_output", "reasoning", "item_reference", "user", "assistant"]
RESPONSE_FIELDS = st.sampled_from(RESPONSES.body.__struct_fields__) | st.text(max_size=10)


@given(
    st.lists(st.dictionaries(ITEM_FIELDS, JSON | PARTS | st.sampled_from(ITEM_TYPES)), max_size=3) | JSON,
    st.dictionaries(RESPONSE_FIELDS, JSON, max_size=3),
)
def test_odd_responses_are_refused_cleanly(items: object, odd: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        body = {"model": "m", "input": items, **odd}
        request = RESPONSES.parse(json.dumps(body).encode())
        DESCRIBED[RESPONSES.path].validate({name: value for name, value in odd.items() if value is not None} | body)
        if not request.referred_items and request.continues is None:
            sent = request.sent(BASE, 1)
            assert msgspec.json.encode(sent)
            assert set(sent) <= set(ChatBody.__struct_fields__) - NEVER_SENT
            assert request.prompts(BASE)[0].bound > 0


@given(st.sampled_from(ENDPOINTS), st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(endpoint: Endpoint, raw: bytes) -> None:
    with suppress(InvalidRequest):
        endpoint.parse(raw)
