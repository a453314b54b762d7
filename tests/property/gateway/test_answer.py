"""However the bytes of a stream are cut up, the client gets the same frames and the count is the same."""

from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.chat_answers import TieredAnswer
from tokenyard.gateway.endpoints.usage import USAGE_AT_END_BYTES, read_usage, read_usage_at_end

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["\n\n", "data: [DONE]\n\n", '"usage":{"completion_tokens":9}', "[DONE]", "data: ", "\r\n"]
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[dict[str, object]], int, int, list[bytes]]:
    """A replica's stream: its frames without usage, its prompt, its choices, and its bytes cut anywhere."""
    prompt, choices = draw(st.integers(1, 50)), draw(st.integers(1, 3))
    plain: list[dict[str, object]] = []
    raw = b""
    counts = dict.fromkeys(range(choices), 0)
    for text in draw(st.lists(TEXT, max_size=8)):
        index = draw(st.integers(0, choices - 1))
        counts[index] += draw(st.integers(1, 3))
        frame: dict[str, object] = {"id": "x", "choices": [{"index": index, "delta": {"content": text}}]}
        plain.append(frame)
        usage = {"prompt_tokens": prompt, "completion_tokens": counts[index], "total_tokens": 0}
        raw += b"data: " + orjson.dumps({**frame, "usage": usage}) + b"\n\n"
        if draw(st.booleans()):
            raw += b": keep-alive\n\n"
    total = sum(counts.values())
    final = {"prompt_tokens": prompt, "completion_tokens": total, "prompt_tokens_details": {"cached_tokens": 1}}
    raw += b"data: " + orjson.dumps({"id": "x", "choices": [], "usage": final}) + b"\n\ndata: [DONE]\n\n"
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    edges = [0, *cuts, len(raw)]
    return plain, prompt, total, [raw[low:high] for low, high in pairwise(edges)]


@given(streams(), st.booleans(), st.sampled_from([None, "default", "priority"]))
def test_cuts_change_nothing_and_a_tier_is_told_in_every_event(
    stream: tuple[list[dict[str, object]], int, int, list[bytes]], include_usage: bool, tier: str | None
) -> None:
    plain, prompt, total, pieces = stream
    if tier is None:
        scanner = Answer(include_usage=include_usage, choices_per_prompt=3)
    else:
        scanner = TieredAnswer(include_usage=include_usage, choices_per_prompt=3, tier=tier)
    sent = b"".join(scanner.feed(piece) for piece in pieces)
    assert scanner.done
    assert scanner.complete
    assert scanner.usage == TokenUsage(prompt, total, 1)
    events = [event.removeprefix(b"data: ") for event in sent.split(b"\n\n") if event.startswith(b"data: ")]
    assert events.pop() == b"[DONE]"
    frames = [orjson.loads(event) for event in events]
    assert [frame.pop("service_tier", None) for frame in frames] == [tier] * len(frames)
    if include_usage:
        assert frames.pop()["usage"]["completion_tokens"] == total
        assert all(frame.pop("usage") is None for frame in frames)
    assert frames == plain


@given(streams(), st.data())
def test_a_cut_stream_is_counted_as_far_as_it_came(
    stream: tuple[list[dict[str, object]], int, int, list[bytes]], data: st.DataObject
) -> None:
    _, prompt, total, pieces = stream
    raw = b"".join(pieces)
    kept = raw[: data.draw(st.integers(0, len(raw)))]
    scanner = Answer(include_usage=False, choices_per_prompt=3)
    scanner.feed(kept)
    last: dict[int, int] = {}
    for event in kept.split(b"\n\n")[:-1]:
        if event.startswith(b"data: {"):
            frame = orjson.loads(event[6:])
            if frame["choices"]:
                last[frame["choices"][0]["index"]] = frame["usage"]["completion_tokens"]
    if not scanner.complete:
        assert scanner.usage == TokenUsage(prompt if last else 0, sum(last.values()))
    assert scanner.usage.completion_tokens <= total


def test_no_bytes_within_an_end_change_nothing() -> None:
    scanner = Answer(include_usage=False)
    assert scanner.feed(b"data: [DONE]\n") == scanner.feed(b"") == b""
    scanner.feed(b"\n")
    assert scanner.done


@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes_are_survived(raw: bytes, cut: int) -> None:
    scanner = Answer(include_usage=False)
    whole = scanner.feed(raw[:cut]) + scanner.feed(raw[cut:])
    other = Answer(include_usage=False)
    assert other.feed(raw) == whole
    assert other.usage == scanner.usage


USAGE = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 10**9), "completion_tokens": st.integers(0, 10**9)},
    optional={"prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": st.integers(0, 99)})},
)


@given(TEXT | st.just('"usage":{"prompt_tokens":1}'), USAGE, st.text(max_size=20))
def test_the_end_of_a_long_reply_tells_what_the_whole_of_it_does(text: str, usage: dict[str, int], name: str) -> None:
    logprobs = {"tokens": ["usage"], "top_logprobs": [{"usage": -0.5, text: -1.5}]}
    choices = [{"index": 0, "text": text * 100, "logprobs": logprobs}]
    reply = orjson.dumps({"model": name, "choices": choices, "usage": usage, "system_fingerprint": name})
    assert read_usage_at_end(reply[-USAGE_AT_END_BYTES:]) == read_usage(reply)


@given(st.binary(max_size=100), st.sampled_from([b"", b'"usage":', b'"usage": null}', b'"usage":3}', b'"usage":{"a"']))
def test_an_end_without_usage_tells_none(raw: bytes, end: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        read_usage_at_end(raw.replace(b'"', b"") + end)
