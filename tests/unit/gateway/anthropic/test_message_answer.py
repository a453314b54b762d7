"""What becomes of a chat's answer, whole and in events."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import orjson
import pytest

from tokenyard.core.errors import UpstreamFailed
from tokenyard.core.ids import RequestId
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.anthropic.answer import MessageAnswer
from tokenyard.gateway.endpoints.body import AnswerHead

HEAD = AnswerHead(RequestId("req_1"), "m")
CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}


def whole(message: dict[str, Any], finish: str, **choice: object) -> dict[str, Any]:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    reply = {"choices": [{"message": message, "finish_reason": finish, **choice}], "usage": usage}
    answer = MessageAnswer(HEAD)
    told: dict[str, Any] = orjson.loads(answer.whole(orjson.dumps(reply)))
    assert answer.usage == TokenUsage(7, 3, 2)
    return told


def chunk(delta: dict[str, Any], tokens: int = 1, choice: Mapping[str, object] = MappingProxyType({})) -> bytes:
    usage = {"prompt_tokens": 7, "completion_tokens": tokens}
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta, **choice}], "usage": usage}) + b"\n\n"


def final(tokens: int = 3) -> bytes:
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "prompt_tokens_details": {"cached_tokens": 2}}
    return b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\ndata: [DONE]\n\n"


def events(told: bytes) -> Iterator[dict[str, Any]]:
    *all_, rest = told.split(b"\n\n")
    assert rest == b""
    for event in all_:
        name, data = event.split(b"\n")
        read = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + read["type"].encode()
        yield read


def test_a_whole_text() -> None:
    assert whole({"content": "hi"}, "stop") == {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "output_tokens": 3,
        },
    }


def test_an_answer_without_text_has_no_block() -> None:
    assert whole({"content": ""}, "stop")["content"] == []


@pytest.mark.parametrize(
    ("finish", "choice", "calls", "reason"),
    [
        ("stop", {}, False, "end_turn"),
        ("stop", {"stop_reason": 2}, False, "end_turn"),
        ("stop", {"stop_reason": "END"}, False, "stop_sequence"),
        ("length", {}, False, "max_tokens"),
        ("length", {}, True, "max_tokens"),
        ("tool_calls", {}, True, "tool_use"),
        ("stop", {}, True, "tool_use"),
        ("tool_calls", {"stop_reason": "END"}, True, "stop_sequence"),
        ("content_filter", {}, False, "refusal"),
    ],
)
def test_why_it_stopped(finish: str, choice: dict[str, object], calls: bool, reason: str) -> None:
    told = whole({"content": "a", **({"tool_calls": [CALL]} if calls else {})}, finish, **choice)
    assert told["stop_reason"] == reason
    assert told["stop_sequence"] == ("END" if reason == "stop_sequence" else None)
    answer = MessageAnswer(HEAD)
    delta = {"content": "a", **({"tool_calls": [CALL]} if calls else {})}
    *_, end, _stop = events(answer.feed(chunk(delta, choice={"finish_reason": finish, **choice}) + final()))
    assert end["delta"] == {"stop_reason": told["stop_reason"], "stop_sequence": told["stop_sequence"]}
    assert end["usage"] == told["usage"]


@pytest.mark.parametrize(
    "reply", [b"", b"[]", b"{}", b'{"usage":{}}', b'{"usage":{},"choices":[]}', b'{"usage":{},"choices":[{}]}']
)
def test_what_is_no_answer_is_none(reply: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        MessageAnswer(HEAD).whole(reply)


@pytest.mark.parametrize("arguments", ["", "{", "[]", "null", '"x"'])
def test_an_input_that_is_no_object_is_told_as_it_is(arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    (block,) = whole({"content": None, "tool_calls": [call]}, "tool_calls")["content"]
    assert block["input"] == ({"INVALID_JSON": arguments} if arguments else {})


def test_the_events_of_text_and_tools() -> None:
    answer = MessageAnswer(HEAD)
    told = answer.feed(
        chunk({"role": "assistant", "content": ""}, tokens=0)
        + chunk({"content": "a"})
        + chunk({"tool_calls": [{"index": 0, "id": "c0", "function": {"name": "f", "arguments": ""}}]})
        + chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]})
        + chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})
        + chunk({"tool_calls": [{"index": 1, "id": "c1", "function": {"name": "g", "arguments": "{}"}}]})
        + chunk({"content": "b"}, choice={"finish_reason": "tool_calls"})
        + final()
    )
    start, *shown = events(told)
    assert start["message"]["content"] == []
    assert start["message"]["usage"]["input_tokens"] == 7
    assert [
        (
            event["type"].removeprefix("content_block_"),
            event.get("index"),
            event.get("content_block") or event.get("delta"),
        )
        for event in shown[:-2]
    ] == [
        ("start", 0, {"type": "text", "text": ""}),
        ("delta", 0, {"type": "text_delta", "text": "a"}),
        ("stop", 0, None),
        ("start", 1, {"type": "tool_use", "id": "c0", "name": "f", "input": {}}),
        ("delta", 1, {"type": "input_json_delta", "partial_json": '{"x"'}),
        ("delta", 1, {"type": "input_json_delta", "partial_json": ":1}"}),
        ("stop", 1, None),
        ("start", 2, {"type": "tool_use", "id": "c1", "name": "g", "input": {}}),
        ("delta", 2, {"type": "input_json_delta", "partial_json": "{}"}),
        ("stop", 2, None),
        ("start", 3, {"type": "text", "text": ""}),
        ("delta", 3, {"type": "text_delta", "text": "b"}),
        ("stop", 3, None),
    ]
    assert shown[-2]["delta"]["stop_reason"] == "tool_use"
    assert shown[-2]["usage"]["input_tokens"] == 5
    assert shown[-1] == {"type": "message_stop"}


def test_it_has_begun_with_a_token_only() -> None:
    answer = MessageAnswer(HEAD)
    assert answer.feed(chunk({"role": "assistant", "content": ""}, tokens=0))
    assert not answer.begun
    answer.feed(chunk({"content": "a"}))
    assert answer.begun


def test_more_of_a_call_that_has_ended_is_an_error() -> None:
    answer = MessageAnswer(HEAD)
    answer.feed(chunk({"tool_calls": [CALL]}) + chunk({"tool_calls": [{**CALL, "index": 1}]}))
    answer.feed(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}))
    assert answer.error is not None


def test_a_stream_without_usage_is_counted_and_ended() -> None:
    answer = MessageAnswer(HEAD)
    told = b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {"content": "a"}}]}) + b"\n\n"
    *_, end, stop = events(answer.feed(told * 2 + b"data: [DONE]\n\n"))
    assert answer.done
    assert (end["usage"]["output_tokens"], stop["type"]) == (2, "message_stop")


def test_a_failure_is_the_last_event() -> None:
    answer = MessageAnswer(HEAD)
    (event,) = events(answer.failed(UpstreamFailed("lost")))
    assert event == {
        "type": "error",
        "error": {"type": "api_error", "message": "lost", "details": {"error_code": "upstream_failed"}},
        "request_id": "req_1",
    }
