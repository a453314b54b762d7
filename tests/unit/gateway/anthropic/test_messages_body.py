"""What a Messages request becomes when it is asked as a chat."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from support.fakes.gateway_ports import BASE
from support.request_bodies import image, image_data
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import BaseModel, ImagesSpec
from tokenyard.gateway.endpoints.anthropic.messages import MessagesBody
from tokenyard.gateway.endpoints.chat import ChatBody
from tokenyard.gateway.endpoints.table import CHAT, MESSAGES

SEEING = replace(BASE, images=ImagesSpec(tokens=100))
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, 2]}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "done"}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def read(**fields: object) -> MessagesBody:
    given = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], **fields}
    body = MESSAGES.parse(json.dumps(given).encode())
    assert isinstance(body, MessagesBody)
    return body


def sent(*messages: dict[str, Any], **fields: object) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = read(messages=list(messages), **fields).sent(BASE, 5)["messages"]
    return told


def test_a_string_is_a_block() -> None:
    assert sent({"role": "user", "content": "a"}) == sent({"role": "user", "content": [text("a")]})


def test_blocks_of_text_are_lines_of_one_text() -> None:
    assert sent({"role": "user", "content": [text("a"), text("b")]}) == [{"role": "user", "content": "a\nb"}]


def test_what_one_role_says_in_a_row_is_one_message() -> None:
    said = [{"role": role, "content": word} for role, word in (("user", "a"), ("user", "b"), ("assistant", "c"))]
    assert sent(*said) == [{"role": "user", "content": "a\nb"}, {"role": "assistant", "content": "c"}]


@pytest.mark.parametrize("system", ["s", [text("s")]])
def test_the_system_prompt_comes_first(system: object) -> None:
    assert sent({"role": "user", "content": "a"}, system=system)[0] == {"role": "system", "content": "s"}


def test_a_system_message_stays_where_it_is() -> None:
    said = sent({"role": "user", "content": "a"}, {"role": "system", "content": "s"}, {"role": "user", "content": "b"})
    assert [message["role"] for message in said] == ["user", "system", "user"]


def test_tools_are_used_and_answered() -> None:
    said = sent(
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [text("b"), USE]},
        {"role": "user", "content": [RESULT, {**RESULT, "content": None}, text("c")]},
    )
    call = {"id": "t1", "function": {"name": "f", "arguments": '{"a":[1,2]}'}, "type": "function"}
    assert said[1:] == [
        {"role": "assistant", "content": "b", "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": "t1"},
        {"role": "tool", "content": "", "tool_call_id": "t1"},
        {"role": "user", "content": "c"},
    ]


def test_an_error_of_a_tool_is_told_as_one() -> None:
    (message,) = sent({"role": "user", "content": [{**RESULT, "is_error": True}]})
    assert message["content"] == "Error: done"


def test_a_begun_answer_is_continued_and_another_is_not() -> None:
    continued = read(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]).sent(BASE, 5)
    assert (continued["continue_final_message"], continued["add_generation_prompt"]) == (True, False)
    assert "continue_final_message" not in read().sent(BASE, 5)


def test_it_is_read_as_the_same_chat_would_be() -> None:
    """So that it is held and counted like it."""
    parameters = {"type": "object", "properties": {"a": {"type": "string", "description": "d" * 100}}}
    body = read(system="s", tools=[{"name": "f", "description": "g", "input_schema": parameters}])
    function = {"name": "f", "description": "g", "parameters": parameters}
    chat = CHAT.parse(
        json.dumps(
            {
                "model": "m",
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}],
                "tools": [{"type": "function", "function": function}],
                "max_tokens": 5,
            }
        ).encode()
    )
    assert isinstance(chat, ChatBody)
    assert body.prompts(BASE) == chat.prompts(BASE)
    assert (body.wanted_tokens, body.choices) == (chat.wanted_tokens, chat.choices)
    assert body.sent(BASE, 5) == chat.sent(BASE, 5)


def shown(**source: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image_data(), **source}}


def test_images_are_parts_of_what_a_user_says() -> None:
    body = read(
        messages=[{"role": "user", "content": [text("a"), shown(), text("b")]}, {"role": "user", "content": "c"}]
    )
    body.check_model(SEEING)
    parts = [text("a"), {"type": "image_url", "image_url": {"url": image()}}, text("b"), text("c")]
    assert body.sent(SEEING, 5)["messages"] == [{"role": "user", "content": parts}]
    bound = read(messages=[{"role": "user", "content": [text("a"), text("b"), text("c")]}]).prompts(SEEING)[0].bound
    assert body.prompts(SEEING)[0].bound == bound + 100 - len("\n\n")


@pytest.mark.parametrize(
    ("block", "model", "code"),
    [
        (shown(), BASE, "unsupported_parameter"),
        (shown(data="AAAA"), SEEING, "invalid_image"),
        (shown(data=image_data(size=(5000, 5000))), SEEING, "image_too_large"),
    ],
    ids=["not taken", "none", "too large"],
)
def test_an_image_that_is_not_taken_is_the_messages_fault(block: object, model: BaseModel, code: str) -> None:
    body = read(system="s", messages=[{"role": "user", "content": [block]}])
    with pytest.raises(InvalidRequest) as refused:
        body.check_model(model)
    assert (refused.value.param, refused.value.code) == ("messages", code)
    assert "messages[" not in refused.value.message


@pytest.mark.parametrize(
    "source", [{"type": "url", "url": "https://example.com/a.png"}, {"type": "file", "file_id": "file_1"}]
)
def test_no_address_of_an_image_is_taken(source: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(messages=[{"role": "user", "content": [{"type": "image", "source": source}]}])
    assert refused.value.param == "messages[0].content[0].source.type"


@pytest.mark.parametrize("role", ["assistant", "system"])
def test_only_a_user_shows_images(role: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(messages=[{"role": role, "content": [shown()]}])
    assert refused.value.param == "messages[0].content[0]"


def test_a_model_without_tools_takes_none() -> None:
    body = read(tools=[TOOL])
    body.check_model(BASE)
    with pytest.raises(InvalidRequest) as refused:
        body.check_model(replace(BASE, calls_tools=False))
    assert refused.value.param == "tools"


def test_a_model_that_thinks_cannot_be_kept_from_it() -> None:
    body = read(thinking={"type": "disabled"})
    body.check_model(BASE)
    with pytest.raises(InvalidRequest) as refused:
        body.check_model(replace(BASE, reasons=True))
    assert refused.value.param == "thinking"
    read(thinking={"type": "adaptive"}).check_model(replace(BASE, reasons=True))


def test_the_end_user_is_the_chats() -> None:
    assert read(metadata={"user_id": "u" * 256}).end_user == "u" * 256
    assert (read().end_user, read(metadata={}).end_user) == ("", "")
    for user in ("u" * 257, "a\x00b"):
        with pytest.raises(InvalidRequest) as refused:
            read(metadata={"user_id": user})
        assert "user_id" in (refused.value.param or "")


def test_a_stop_sequence_and_a_schema_are_bounded() -> None:
    deep: object = 1
    for _ in range(300):
        deep = [deep]
    with pytest.raises(InvalidRequest) as refused:
        read(output_config={"format": {"type": "json_schema", "schema": {"a": deep}}})
    assert refused.value.param == "output_config"
    with pytest.raises(InvalidRequest) as tools:
        read(tools=[{"name": "f", "input_schema": {"a": deep}}])
    assert tools.value.param == "tools"


def test_numbers_beyond_64_bits_are_survived() -> None:
    use = {**USE, "input": {"a": 2**70}}
    said = sent({"role": "assistant", "content": [use]}, {"role": "user", "content": [RESULT]})
    assert json.loads(said[0]["tool_calls"][0]["function"]["arguments"])["a"] == pytest.approx(2**70)
