"""However the bytes of a chat stream are cut up, a response has the same events, and they make up the response."""

from itertools import pairwise
from typing import Any

import msgspec
import orjson
from hypothesis import given
from hypothesis import strategies as st

from support.fakes.scripted_server import PROMPT_TOKENS, Delta, ScriptedServer, called, said
from tokenyard.core.errors import UpstreamFailed
from tokenyard.core.ids import RequestId
from tokenyard.gateway.endpoints.answer import Answer, KeptAnswer
from tokenyard.gateway.endpoints.body import AnswerHead
from tokenyard.gateway.endpoints.responses.items import as_kept, as_messages, read_input, read_items
from tokenyard.gateway.endpoints.responses.replay import ResponseReplay
from tokenyard.gateway.endpoints.table import RESPONSES

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.just("\n\ndata: [DONE]\n\n")
RESPONSE = "resp_" + "0" * 32
ITEM_EVENTS = {
    "message": ["output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done"],
    "function_call": ["output_item.added", "function_call_arguments.done", "output_item.done"],
}


@st.composite
def scripts(draw: st.DrawFn) -> list[Delta]:
    """Deltas of texts and calls in any order; a call's first delta names it."""
    script: list[Delta] = []
    seen: set[int] = set()
    for text, index in draw(st.lists(st.tuples(TEXT, st.none() | st.integers(0, 2)), min_size=1, max_size=10)):
        if index is None:
            script.append(said(text, logprob=draw(st.none() | st.just(-0.5))))
        elif index in seen:
            script.append(called(index, arguments=text))
        else:
            seen.add(index)
            script.append(called(index, name=f"f{index}", call=f"call_{index}", arguments=text))
    return script


def _answer(*, background: bool = False) -> Answer:
    asked = {"model": "test-model", "input": "x", "stream": True, "background": background}
    body = RESPONSES.parse(orjson.dumps(asked))
    return body.answer(AnswerHead(RequestId("req_" + "0" * 32), "test-model", 1))


def _events(raw: bytes) -> list[dict[str, Any]]:
    *frames, rest = raw.split(b"\n\n")
    assert rest == b""
    return [orjson.loads(frame.split(b"\n")[1].removeprefix(b"data: ")) for frame in frames]


def _timeless(raw: bytes) -> list[dict[str, Any]]:
    events = _events(raw)
    for event in events:
        event.get("response", {}).pop("completed_at", None)
    return events


@given(scripts(), st.sampled_from(["stop", "length"]), st.lists(st.integers(0, 10_000), max_size=12))
def test_cuts_change_nothing(script: list[Delta], finish_reason: str, cuts: list[int]) -> None:
    raw = ScriptedServer(script, finish_reason=finish_reason).events()
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    cut, whole = _answer(), _answer()
    assert _timeless(b"".join(cut.feed(raw[low:high]) for low, high in pairwise(edges))) == _timeless(whole.feed(raw))
    assert cut.done
    assert cut.usage == whole.usage
    assert (cut.usage.prompt_tokens, cut.usage.completion_tokens) == (PROMPT_TOKENS, len(script))


@given(scripts(), st.sampled_from(["stop", "length"]))
def test_the_events_make_up_the_response(script: list[Delta], finish_reason: str) -> None:
    server = ScriptedServer(script, finish_reason=finish_reason)
    answer = _answer()
    events = _events(answer.feed(server.events()))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]["response"]
    assert events[-1]["type"] == f"response.{last['status']}"
    for place, item in enumerate(last["output"]):
        own = [event for event in events if event.get("output_index") == place]
        steps = [event["type"].removeprefix("response.") for event in own if not event["type"].endswith(".delta")]
        assert steps == ITEM_EVENTS[item["type"]]
        assert own[-1]["item"] == item
        deltas = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        assert deltas == (item["content"][0]["text"] if item["type"] == "message" else item["arguments"])
    texts = [item["content"][0]["text"] for item in last["output"] if item["type"] == "message"]
    assert "".join(texts) == "".join(delta.get("content", "") for delta in script)
    kept = answer.kept()
    assert kept is not None
    assert kept.output["output"] == last["output"]


@given(scripts())
def test_a_whole_answer_says_what_its_stream_says(script: list[Delta]) -> None:
    server = ScriptedServer(script)
    whole, stream = _answer(), _answer()
    reply = orjson.loads(whole.whole(orjson.dumps(server.whole("test-model"))))
    told = _events(stream.feed(server.events()))[-1]["response"]
    assert reply["usage"] == told["usage"]

    def calls(response: dict[str, Any]) -> list[tuple[str, str]]:
        return sorted((one["name"], one["arguments"]) for one in response["output"] if one["type"] == "function_call")

    assert calls(reply) == calls(told)


@given(scripts(), st.integers(0, 5_000))
def test_a_stream_that_breaks_off_fails_in_order(script: list[Delta], cut: int) -> None:
    raw = ScriptedServer(script).events()
    answer = _answer()
    passed = answer.feed(raw[:cut])
    if not passed or answer.done:
        return
    events = _events(passed + answer.failed(UpstreamFailed("lost")))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.failed"
    added = [event for event in events if event["type"] == "response.output_item.added"]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert len(added) == len(done) == len(events[-1]["response"]["output"])


def _replayed(kept: KeptAnswer | None, replay: ResponseReplay) -> bytes:
    """Return what a replay tells of an answer that went through SQL."""
    assert kept is not None
    output, deltas = msgspec.json.decode(msgspec.json.encode((kept.output, kept.deltas)))
    return b"".join(replay.more(output, deltas))


@given(scripts(), st.sampled_from(["stop", "length"]), st.booleans(), st.integers(-1, 40))
def test_events_are_told_again_as_they_were_told(
    script: list[Delta], finish_reason: str, background: bool, after: int
) -> None:
    answer = _answer(background=background)
    waits, queued = answer.queued()
    assert queued.state == "queued"
    told = (waits if background else b"") + answer.feed(ScriptedServer(script, finish_reason=finish_reason).events())
    assert _replayed(answer.kept(), ResponseReplay(-1)) == told
    numbered = [event for event in told.split(b"\n\n") if event]
    again = [event for event in _replayed(answer.kept(), ResponseReplay(after)).split(b"\n\n") if event]
    assert again == numbered[after + 1 :]


@given(scripts(), st.lists(st.integers(0, 5_000), max_size=5), st.integers(-1, 20))
def test_who_looks_while_it_is_made_is_told_each_event_once(script: list[Delta], cuts: list[int], after: int) -> None:
    raw = ScriptedServer(script).events()
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    answer, replay = _answer(background=True), ResponseReplay(after)
    waits, queued = answer.queued()
    told, seen = waits, _replayed(queued, replay)
    for low, high in pairwise(edges):
        told += answer.feed(raw[low:high])
        so_far = answer.so_far()
        if so_far is not None:
            assert so_far.state == "in_progress"
            seen += _replayed(so_far, replay)
    seen += _replayed(answer.kept(), replay)
    assert answer.so_far() is None
    assert [event for event in seen.split(b"\n\n") if event] == [event for event in told.split(b"\n\n") if event][
        after + 1 :
    ]


@given(scripts(), st.integers(0, 5_000))
def test_a_failure_is_told_again(script: list[Delta], cut: int) -> None:
    answer = _answer(background=True)
    waits, _ = answer.queued()
    told = waits + answer.feed(ScriptedServer(script).events()[:cut])
    if answer.done:
        return
    told += answer.failed(UpstreamFailed("lost"))
    assert _replayed(answer.kept(), ResponseReplay(-1)) == told


@given(scripts())
def test_a_whole_answer_has_events_too(script: list[Delta]) -> None:
    server, whole = ScriptedServer(script), _answer()
    reply = orjson.loads(whole.whole(orjson.dumps(server.whole("test-model"))))
    events = _events(_replayed(whole.kept(), ResponseReplay(-1)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"] == reply


ITEMS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "developer"]), "content": TEXT})
    | st.fixed_dictionaries(
        {
            "type": st.just("message"),
            "role": st.just("assistant"),
            "content": st.lists(st.fixed_dictionaries({"type": st.just("output_text"), "text": TEXT}), max_size=2),
        }
    )
    | st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": st.just("c"), "name": TEXT, "arguments": TEXT}
    )
    | st.fixed_dictionaries({"type": st.just("function_call_output"), "call_id": st.just("c"), "output": TEXT}),
    min_size=1,
    max_size=6,
)


@given(ITEMS)
def test_what_is_kept_is_the_same_conversation(given_items: list[dict[str, Any]]) -> None:
    items = [item for item in read_input(given_items) if item.__struct_config__.tag != "item_reference"]
    kept = as_kept(items, RESPONSE)  # type: ignore[arg-type]
    again = read_items(msgspec.json.decode(msgspec.json.encode(kept)))
    assert as_kept(again, RESPONSE) == kept
    before, after = as_messages(None, items), as_messages(None, again)  # type: ignore[arg-type]
    assert [(one.role, one.tool_calls, one.tool_call_id) for one in before] == [
        (one.role, one.tool_calls, one.tool_call_id) for one in after
    ]
    assert [_text(one.content) for one in before] == [_text(one.content) for one in after]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.text for part in content)
    return content or ""
