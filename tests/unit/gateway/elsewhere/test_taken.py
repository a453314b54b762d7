"""What goes to a server elsewhere, and what it does not take."""

from typing import Any

import msgspec
import pytest

from support.fakes.gateway_ports import BASE
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.core.model_files.sources import ServerSource
from tokenyard.core.models import ModelTask, SamplingDefaults
from tokenyard.gateway.elsewhere.taken import body_elsewhere, check_taken, check_tier, hashed_end_user
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, ENDPOINTS, MESSAGES

HELLO = [{"role": "user", "content": "hello"}]
SERVER = ServerSource("https://models.example/v1", "theirs")
ACME, SECRET = OrganizationId("org_acme"), b"s" * 32
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def _chat(**fields: object) -> Any:
    return CHAT.parse(msgspec.json.encode({"model": "ours", "messages": HELLO, **fields}))


def _sent(body: Any, server: ServerSource = SERVER, user: str | None = None) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(body_elsewhere(body, BASE, server, 12, user))
    return decoded


def test_the_body_is_the_clients_under_their_name() -> None:
    body = _chat(temperature=0.5, user="u1", metadata={"a": "b"}, store=True, safety_identifier="s")
    assert _sent(body) == {"model": "theirs", "messages": HELLO, "temperature": 0.5, "max_tokens": 12}
    completion = COMPLETIONS.parse(b'{"model": "ours", "prompt": "once"}')
    assert _sent(completion) == {"model": "theirs", "prompt": "once", "max_tokens": 12}


def test_usage_is_asked_for_as_the_server_can_tell_it() -> None:
    assert _sent(_chat(stream=True))["stream_options"] == {"include_usage": True}
    vllm = msgspec.structs.replace(SERVER, vllm=True)
    asked = {"include_usage": True, "continuous_usage_stats": True}
    assert _sent(_chat(stream=True), vllm)["stream_options"] == asked


def test_the_bound_goes_by_their_name_of_it() -> None:
    other = msgspec.structs.replace(SERVER, limit_as="max_completion_tokens")
    sent = _sent(_chat(), other)
    assert (sent["max_completion_tokens"], "max_tokens" in sent) == (12, False)


def test_an_end_user_goes_as_a_hash() -> None:
    user = hashed_end_user(_chat(user="jane@example.test"), ACME, SECRET)
    assert user is not None
    assert "jane" not in user
    assert user == hashed_end_user(_chat(safety_identifier="jane@example.test"), ACME, SECRET)
    assert user != hashed_end_user(_chat(user="jane@example.test"), OrganizationId("org_other"), SECRET)
    assert hashed_end_user(_chat(), ACME, SECRET) is None
    assert _sent(_chat(), user=user)["user"] == user


@pytest.mark.parametrize(
    ("name", "fields", "param"),
    [
        ("n", {"n": 2}, "n"),
        ("logprobs", {"logprobs": True}, "logprobs"),
        ("tools", {"tools": [TOOL]}, "tools"),
        ("json_schema", {"response_format": SCHEMA}, "response_format"),
        ("response_format", {"response_format": SCHEMA}, "response_format"),
        ("stream", {"stream": True}, "stream"),
    ],
)
def test_what_it_does_not_take_is_refused_by_name(name: str, fields: dict[str, object], param: str) -> None:
    server = msgspec.structs.replace(SERVER, refuses=(name,))
    with pytest.raises(InvalidRequest, match=f"does not take '{name}'") as refused:
        check_taken(CHAT, _chat(**fields), BASE, server)
    assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
    check_taken(CHAT, _chat(), BASE, server)
    check_taken(CHAT, _chat(**fields), BASE, SERVER)


def test_completions_as_a_whole() -> None:
    server = msgspec.structs.replace(SERVER, refuses=("prompt",))
    with pytest.raises(InvalidRequest, match="'prompt'"):
        check_taken(COMPLETIONS, COMPLETIONS.parse(b'{"model": "ours", "prompt": "once"}'), BASE, server)


def test_what_the_models_file_states_goes_too() -> None:
    base = msgspec.structs.replace(BASE, sampling=SamplingDefaults(temperature=0.3))
    assert msgspec.json.decode(body_elsewhere(_chat(), base, SERVER, 12, None))["temperature"] == 0.3


def test_text_is_served_and_all_else_refused() -> None:
    for endpoint in ENDPOINTS:
        if endpoint.body.task is ModelTask.CHAT:
            check_taken(endpoint, _chat(), BASE, SERVER)
            continue
        with pytest.raises(InvalidRequest, match=f"not served at {endpoint.path}") as refused:
            check_taken(endpoint, _chat(), BASE, SERVER)
        assert refused.value.param == "model"


def _message(*roles: str, **fields: object) -> Any:
    messages = [{"role": role, "content": "hello"} for role in roles]
    return MESSAGES.parse(msgspec.json.encode({"model": "ours", "max_tokens": 12, "messages": messages, **fields}))


def test_a_message_goes_as_the_chat_that_it_is() -> None:
    body = _message("user", metadata={"user_id": "jane@example.test"})
    assert _sent(body) == {"model": "theirs", "messages": HELLO, "max_tokens": 12}
    assert hashed_end_user(body, ACME, SECRET) == hashed_end_user(_chat(user="jane@example.test"), ACME, SECRET)


def test_a_begun_answer_is_continued_by_vllm_alone() -> None:
    body = _message("user", "assistant")
    with pytest.raises(InvalidRequest, match="does not continue") as refused:
        check_taken(MESSAGES, body, BASE, SERVER)
    assert refused.value.param == "messages"
    check_taken(MESSAGES, body, BASE, msgspec.structs.replace(SERVER, vllm=True))


@pytest.mark.parametrize("tier", ["flex", "priority", "fast"])
def test_it_has_no_service_tiers(tier: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_tier(_chat(service_tier=tier))
    assert (refused.value.param, refused.value.code) == ("service_tier", "unsupported_value")
    for served in ("auto", "default", None):
        check_tier(_chat(service_tier=served))
