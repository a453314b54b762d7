"""A foreign stream, in any pieces, as a replica would have sent it."""

from typing import Any

import orjson
import pytest

from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.elsewhere import events as events_module
from tokenyard.gateway.elsewhere.answer_count import AnswerCount, CountBounds
from tokenyard.gateway.elsewhere.answer_shape import AnswerShape
from tokenyard.gateway.elsewhere.events import ServerEvents
from tokenyard.gateway.endpoints.answer import Answer

USAGE = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
END = b"data: [DONE]\n\n"


def _events(*, answers: int = 1, chat: bool = True, vllm: bool = False) -> ServerEvents:
    shape = AnswerShape(chat, "chatcmpl-ours", "ours", 1_700_000_000, answers)
    bounds = CountBounds(prompts=(100,), guesses=(25,), choices=answers, max_tokens=50)
    return ServerEvents(shape, AnswerCount(bounds), ("theirs", "models.example"), tells_of_choice=vllm)


def _chunk(text: str | None = None, *, index: int = 0, finish: str | None = None, **more: object) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {
        "id": "x",
        "model": "theirs",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
        **more,
    }


def _said(*chunks: object) -> bytes:
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks)


def _read(sent: bytes) -> list[dict[str, Any]]:
    frames = sent.decode().strip().split("\n\n")
    assert all(frame.startswith("data: ") for frame in frames)
    return [orjson.loads(frame.removeprefix("data: ")) for frame in frames if frame != "data: [DONE]"]


def _as_answer(sent: bytes) -> Answer:
    answer = Answer(include_usage=True)
    answer.feed(sent)
    return answer


def test_our_name_and_the_usage_so_far_stand_in_each_event() -> None:
    first, second, final = _read(_events().feed(_said(_chunk("ab"), _chunk("cd", finish="stop")) + END))
    assert first == {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "ours",
        "choices": [{"index": 0, "logprobs": None, "finish_reason": None, "delta": {"content": "ab"}}],
        "usage": {"prompt_tokens": 25, "completion_tokens": 1, "total_tokens": 26},
    }
    assert second["usage"]["completion_tokens"] == final["usage"]["completion_tokens"] == 2
    assert final["choices"] == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_any_line_ends_comments_and_pieces(size: int) -> None:
    """As standards allow it: comments, other fields, an event's data over several lines, no space after the colon."""
    body = b": keep-alive\n\nevent: message\nid: 5\ndata:" + orjson.dumps(_chunk("a")) + b"\n\n"
    body += b'data: {"choices": [{"index": 0, "delta": {"content": "b"},\ndata: "finish_reason": "stop"}]}\n\n'
    body += _said({"choices": [], "usage": USAGE}) + END
    for ends in (b"\n", b"\r\n"):
        events, told = _events(), body.replace(b"\n", ends)
        sent = b"".join(events.feed(told[at : at + size]) for at in range(0, len(told), size))
        answer = _as_answer(sent)
        assert answer.done
        assert answer.usage == TokenUsage(7, 9)
        assert [one["choices"][0]["delta"] for one in _read(sent)[:2]] == [{"content": "a"}, {"content": "b"}]


def test_usage_with_the_last_choice_is_the_answers() -> None:
    answer = _as_answer(_events().feed(_said(_chunk("a"), _chunk(finish="stop", usage=USAGE)) + END))
    assert answer.usage == TokenUsage(7, 9)


def test_usage_that_is_told_apart_more_than_once_counts_as_last_told() -> None:
    early = {"choices": [], "usage": {**USAGE, "completion_tokens": 1}}
    sent = _events().feed(_said(_chunk("a"), early, _chunk("b", finish="stop"), {"choices": [], "usage": USAGE}) + END)
    assert _as_answer(sent).usage == TokenUsage(7, 9)


def test_without_usage_it_counts_itself() -> None:
    answer = _as_answer(_events().feed(_said(_chunk("abcdefgh"), _chunk(finish="stop")) + END))
    assert answer.usage == TokenUsage(25, 2)


def test_an_ended_answer_without_done_is_whole_and_one_that_is_not_ended_is_none() -> None:
    for chunks in ([_chunk("a", finish="stop")], [_chunk("a"), {"choices": [], "usage": USAGE}]):
        events = _events()
        answer = _as_answer(events.feed(_said(*chunks)) + events.ended())
        assert answer.done
        assert events.ended() == b""
    for chunks in ([_chunk("a")], []):
        events = _events()
        assert not _as_answer(events.feed(_said(*chunks)) + events.ended()).complete


def test_several_choices_in_one_event_are_told_apart() -> None:
    both = {"choices": [{"index": at, "delta": {"content": "abcd" * (at + 1)}} for at in range(2)], "usage": USAGE}
    events = _events(answers=2)
    first, second = _read(events.feed(_said(both)))
    assert [one["usage"]["completion_tokens"] for one in (first, second)] == [1, 2]
    answer = Answer(include_usage=False, choices_per_prompt=2)
    answer.feed(_said(first, second))
    assert answer.usage == TokenUsage(25, 3)


def test_a_vllm_tells_of_each_choice() -> None:
    told = {"prompt_tokens": 7, "completion_tokens": 3}
    chunks = [_chunk("abcd", index=at, usage=told) for at in range(2)]
    answer = Answer(include_usage=False, choices_per_prompt=2)
    answer.feed(_events(answers=2, vllm=True).feed(_said(*chunks)))
    assert answer.usage == TokenUsage(7, 6)


def test_texts_of_completions() -> None:
    (event,) = _read(_events(chat=False).feed(_said({"choices": [{"index": 0, "text": "ab", "x": 1}]})))
    assert event["object"] == "text_completion"
    assert event["choices"] == [{"index": 0, "logprobs": None, "finish_reason": None, "text": "ab"}]


def test_tool_calls_pass_and_count() -> None:
    call = {"index": 1, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}, "extra": 1}
    chunk = {"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}}]}
    (event,) = _read(_events().feed(_said(chunk)))
    assert event["choices"][0]["delta"]["tool_calls"] == [{name: call[name] for name in call if name != "extra"}]
    assert event["usage"]["completion_tokens"] == 2


def test_thoughts_are_not_shown_and_count() -> None:
    (event,) = _read(_events().feed(_said({"choices": [{"index": 0, "delta": {"reasoning_content": "a" * 12}}]})))
    assert event["choices"][0]["delta"] == {}
    assert event["usage"]["completion_tokens"] == 3


def test_an_error_ends_it_and_tells_nothing_of_theirs() -> None:
    events = _events()
    error = {"message": "theirs cannot do tools", "type": "invalid_request_error", "code": 400, "provider": "x"}
    sent = events.feed(_said(_chunk("a"), {"error": error}, _chunk("b")))
    assert _read(sent)[-1] == {
        "error": {"message": "ours cannot do tools", "type": "invalid_request_error", "param": None, "code": 400}
    }
    assert events.feed(_said(_chunk("c"))) == events.ended() == b""


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {broken\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": {"a": 1}}\n\n',
        b'data: {"choices": [7]}\n\n',
        b'data: {"choices": [{"index": 9}]}\n\n',
        b'data: {"choices": [{"index": -1}]}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": 5}}]}}]}\n\n',
        b"data: \xff\xfe\n\n",
        b"data: [DONE]\n\n",
    ],
)
def test_what_cannot_be_read_is_an_error(garbage: bytes) -> None:
    answer = _as_answer(_events().feed(garbage))
    assert answer.error is not None
    assert not answer.complete


def test_an_event_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MAX_EVENT_BYTES", 1000)
    for piece in (b"x" * 100, b"data: " + b"x" * 94 + b"\n"):
        events, sent = _events(), b""
        for _ in range(20):
            sent += events.feed(piece)
        assert _as_answer(sent).error is not None
    events = _events()
    assert _as_answer(b"".join(events.feed(_said(_chunk("a" * 500))) for _ in range(20))).error is None
