"""However a chat's stream is cut up, the client of a message gets the same events, and what a whole answer says."""

from itertools import pairwise
from typing import Any

import anthropic.lib.streaming._messages as sdk
import orjson
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from support.fakes.model_server import merged
from tokenyard.core.ids import RequestId
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.anthropic.answer import MessageAnswer
from tokenyard.gateway.endpoints.body import AnswerHead

HEAD = AnswerHead(RequestId("req_1"), "m")
EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["\n\n", "event: error\n", "data: "]
)
INPUT = st.dictionaries(TEXT, st.integers(-9, 9) | TEXT | st.none(), max_size=3)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[dict[str, Any]], str | None]:
    """The deltas of an answer, texts before tools, and the stop sequence that ended it."""
    deltas: list[dict[str, Any]] = [{"content": said} for said in draw(st.lists(TEXT, max_size=4))]
    for index in range(draw(st.integers(0, 3))):
        arguments = orjson.dumps(draw(INPUT | st.lists(TEXT, max_size=2) | TEXT | st.none())).decode()
        cut = draw(st.integers(0, len(arguments)))
        function = {"name": draw(st.text("abc", min_size=1, max_size=3)), "arguments": ""}
        parts = [{"index": index, "id": f"c{index}", "function": function}]
        parts += [{"index": index, "function": {"arguments": piece}} for piece in (arguments[:cut], arguments[cut:])]
        deltas += [{"tool_calls": [part]} for part in parts]
    return deltas, draw(st.none() | st.just("END"))


def stream(deltas: list[dict[str, Any]], finish: str, stop: str | None) -> bytes:
    raw = b""
    for at, delta in enumerate([{"role": "assistant", "content": ""}, *deltas, {}]):
        choice = {"index": 0, "delta": delta, "finish_reason": finish if at > len(deltas) else None}
        if at > len(deltas) and stop:
            choice["stop_reason"] = stop
        usage = {"prompt_tokens": 9, "completion_tokens": at}
        raw += b"data: " + orjson.dumps({"choices": [choice], "usage": usage}) + b"\n\n: ping\n\n"
    return raw + b"data: " + orjson.dumps({"choices": [], "usage": usage_of(deltas)}) + b"\n\ndata: [DONE]\n\n"


def usage_of(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    details = {"cached_tokens": 4}
    return {"prompt_tokens": 9, "completion_tokens": len(deltas) + 1, "prompt_tokens_details": details}


def accumulated(told: bytes) -> dict[str, Any]:
    """Return the message that Anthropic's own client makes of the events."""
    message, buffers = None, dict[int, bytes]()
    for event in told.split(b"\n\n")[:-1]:
        name, data = event.split(b"\n")
        read = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + read["type"].encode()
        message = sdk.accumulate_event(event=EVENT.validate_python(read), current_snapshot=message, json_bufs=buffers)
    assert message is not None
    return message.to_dict()


@settings(deadline=None)  # the client's types are made at their first use
@given(answers(), st.data())
def test_a_stream_says_what_a_whole_answer_does(
    answer: tuple[list[dict[str, Any]], str | None], data: st.DataObject
) -> None:
    deltas, stop = answer
    finish = "tool_calls" if any("tool_calls" in delta for delta in deltas) else "stop"
    raw = stream(deltas, finish, stop)
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12))), len(raw)]
    cut, uncut = MessageAnswer(HEAD), MessageAnswer(HEAD)
    told = b"".join(cut.feed(raw[low:high]) for low, high in pairwise(edges))
    assert told == uncut.feed(raw)
    assert cut.done
    assert cut.complete
    assert cut.usage == TokenUsage(9, len(deltas) + 1, 4)
    choice = {"message": {"role": "assistant", **merged(deltas)}, "finish_reason": finish, "stop_reason": stop}
    reply = {"choices": [choice], "usage": usage_of(deltas)}
    whole = orjson.loads(MessageAnswer(HEAD).whole(orjson.dumps(reply)))
    Message.model_validate(whole)
    shown = accumulated(told)
    assert shown.pop("stop_details") is None
    shown["content"] = [block for block in shown["content"] if block != {"type": "text", "text": ""}]
    assert shown == whole


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_survived(raw: bytes, cut: int) -> None:
    pieces, once = MessageAnswer(HEAD), MessageAnswer(HEAD)
    assert pieces.feed(raw[:cut]) + pieces.feed(raw[cut:]) == once.feed(raw)
    assert pieces.usage == once.usage
