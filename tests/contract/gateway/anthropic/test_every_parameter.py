"""Every parameter that Anthropic's client knows, and every kind of its value, is taken or refused by its name."""

import json
import re
from typing import Any

import msgspec
import pytest
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

from support.fakes.gateway_ports import BASE
from support.fuzz.sdk_parameters import cases
from support.gateway_stack import HELLO
from support.request_bodies import image_data
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import ImagesSpec
from tokenyard.gateway.endpoints.anthropic.messages import ConversationBody, CountTokensBody
from tokenyard.gateway.endpoints.table import MESSAGES, read_body

SEEING = msgspec.structs.replace(BASE, images=ImagesSpec(tokens=100))
KNOWN = {
    "Base64ImageSourceParam.data": image_data(),
    "Base64PDFSourceParam.data": "x",
    "MessageCreateParamsNonStreaming.model": BASE.id,
    "MessageCountTokensParams.model": BASE.id,
}
HEADERS = {"user_profile_id", "workspace_id"}
"""These are headers, which select what Anthropic's own keys may do."""

# Field by field, the kinds of values that are taken. What they do is shown by the tests beside this one.
TAKEN = {
    "request.max_tokens": "int",
    "request.messages": "UserMessageParam, AssistantMessageParam, SystemMessageParam",
    "request.model": "known",
    "request.cache_control": "CacheControlEphemeralParam",
    "request.metadata": "MetadataParam",
    "request.output_config": "OutputConfigParam",
    "request.service_tier": "auto, standard_only",
    "request.speed": "standard",
    "request.stop_sequences": "str",
    "request.system": "str, TextBlockParam",
    "request.thinking": "ThinkingConfigDisabledParam, ThinkingConfigAdaptiveParam",
    "request.tool_choice": "ToolChoiceAutoParam, ToolChoiceAnyParam, ToolChoiceToolParam, ToolChoiceNoneParam",
    "request.tools": "ToolParam",
    "request.stream": "False",
    "UserMessageParam.content": "str, TextBlockParam, ImageBlockParam, ToolResultBlockParam",
    "UserMessageParam.role": "user",
    "AssistantMessageParam.content": "str, TextBlockParam, ToolUseBlockParam",
    "AssistantMessageParam.role": "assistant",
    "SystemMessageParam.content": "str, TextBlockParam",
    "SystemMessageParam.role": "system",
    "CacheControlEphemeralParam.type": "ephemeral",
    "CacheControlEphemeralParam.ttl": "5m, 1h",
    "MetadataParam.user_id": "str",
    "OutputConfigParam.format": "JSONOutputFormatParam",
    "TextBlockParam.text": "str",
    "TextBlockParam.type": "text",
    "TextBlockParam.cache_control": "CacheControlEphemeralParam",
    "ThinkingConfigDisabledParam.type": "disabled",
    "ThinkingConfigAdaptiveParam.type": "adaptive",
    "ThinkingConfigAdaptiveParam.display": "omitted",
    "ToolChoiceAutoParam.type": "auto",
    "ToolChoiceAutoParam.disable_parallel_tool_use": "True, False",
    "ToolChoiceAnyParam.type": "any",
    "ToolChoiceAnyParam.disable_parallel_tool_use": "True, False",
    "ToolChoiceToolParam.name": "str",
    "ToolChoiceToolParam.type": "tool",
    "ToolChoiceToolParam.disable_parallel_tool_use": "True, False",
    "ToolChoiceNoneParam.type": "none",
    "ToolParam.input_schema": "InputSchemaTyped, object",
    "ToolParam.name": "str",
    "ToolParam.allowed_callers": "direct",
    "ToolParam.cache_control": "CacheControlEphemeralParam",
    "ToolParam.defer_loading": "False",
    "ToolParam.description": "str",
    "ToolParam.eager_input_streaming": "True",
    "ToolParam.strict": "True, False",
    "ToolParam.type": "custom",
    "ImageBlockParam.source": "Base64ImageSourceParam",
    "ImageBlockParam.type": "image",
    "ImageBlockParam.cache_control": "CacheControlEphemeralParam",
    "ToolResultBlockParam.tool_use_id": "str",
    "ToolResultBlockParam.type": "tool_result",
    "ToolResultBlockParam.cache_control": "CacheControlEphemeralParam",
    "ToolResultBlockParam.content": "str, TextBlockParam",
    "ToolResultBlockParam.is_error": "True, False",
    "ToolUseBlockParam.id": "str",
    "ToolUseBlockParam.input": "object",
    "ToolUseBlockParam.name": "str",
    "ToolUseBlockParam.type": "tool_use",
    "ToolUseBlockParam.cache_control": "CacheControlEphemeralParam",
    "ToolUseBlockParam.caller": "DirectCallerParam",
    "JSONOutputFormatParam.schema": "object",
    "JSONOutputFormatParam.type": "json_schema",
    "InputSchemaTyped.type": "object",
    "InputSchemaTyped.properties": "object",
    "InputSchemaTyped.required": "str",
    "Base64ImageSourceParam.data": "known",
    "Base64ImageSourceParam.media_type": "image/jpeg, image/png, image/gif, image/webp",
    "Base64ImageSourceParam.type": "base64",
    "DirectCallerParam.type": "direct",
}
NOT_COUNTED = {
    *("request.max_tokens", "request.metadata", "request.service_tier", "request.stop_sequences", "request.stream"),
    "MetadataParam.user_id",
}
"""Not among the parameters of `count_tokens`."""


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """Return the request with what its fields need beside them."""
    body = {name: value for name, value in given.items() if name not in HEADERS}
    if "tool_choice" in body:
        body["tools"] = [{"name": "x", "input_schema": {"type": "object"}}]
    # An answer that has begun would be continued, which a use of a tool cannot be.
    return body | {"messages": [*body["messages"], *HELLO]}


def _read(given: dict[str, Any], counted: bool) -> ConversationBody:
    raw = json.dumps(_asked(given)).encode()
    body = read_body(raw, msgspec.json.Decoder(CountTokensBody)) if counted else MESSAGES.parse(raw)
    assert isinstance(body, ConversationBody)
    body.check_model(SEEING)
    return body


def _blamed(given: dict[str, Any], counted: bool) -> str | None:
    """Return the field that a request is refused for, None where it is taken."""
    try:
        _read(given, counted)
    except InvalidRequest as refused:
        return re.split(r"[.[]", refused.param or "")[0]
    return None


@pytest.mark.parametrize("counted", [False, True], ids=["create", "count_tokens"])
def test_what_is_taken_is_listed_and_all_else_is_refused_by_name(counted: bool) -> None:
    owner: type = MessageCountTokensParams if counted else MessageCreateParamsNonStreaming
    least = {"model": BASE.id, "messages": HELLO} | ({} if counted else {"max_tokens": 1})
    found: dict[str, list[str]] = {}
    for case in cases(owner, least, lambda given: _blamed(given, counted) is None, KNOWN):
        field, kind = case.name.split(": ")
        owned_by, _, name = field.rpartition(".")
        if name in HEADERS:
            continue
        blamed = _blamed(case.given, counted)
        if blamed is None:
            found.setdefault(f"{'request' if owned_by == owner.__name__ else owned_by}.{name}", []).append(kind)
        else:
            assert blamed in case.given, case.name
    taken = {field: kinds for field, kinds in TAKEN.items() if not counted or field not in NOT_COUNTED}
    assert {field: ", ".join(kinds) for field, kinds in found.items()} == taken


def test_a_stream_is_the_one_thing_more_that_can_be_asked_for() -> None:
    streamed, whole = (
        set(one.__annotations__) for one in (MessageCreateParamsStreaming, MessageCreateParamsNonStreaming)
    )
    assert streamed == whole
    assert _blamed({"model": BASE.id, "max_tokens": 1, "messages": HELLO, "stream": True}, counted=False) is None
