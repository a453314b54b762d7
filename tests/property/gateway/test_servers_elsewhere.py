"""Whatever a server elsewhere sends, in whatever pieces: nothing breaks, nothing counts more than was held."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tokenyard.gateway.elsewhere.answer_count import AnswerCount, CountBounds
from tokenyard.gateway.elsewhere.answer_shape import AnswerShape
from tokenyard.gateway.elsewhere.events import ServerEvents
from tokenyard.gateway.endpoints.answer import Answer

CHOICES, MAX_TOKENS, PROMPT = 2, 20, 50
ODD = st.none() | st.booleans() | st.integers(-5, 2**63) | st.floats(allow_nan=False) | st.text(max_size=5)
NUMBERS = st.integers(0, 60) | ODD
USAGE = ODD | st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": NUMBERS,
        "completion_tokens": NUMBERS,
        "prompt_tokens_details": ODD | st.fixed_dictionaries({}, optional={"cached_tokens": NUMBERS}),
        "completion_tokens_details": ODD | st.fixed_dictionaries({}, optional={"reasoning_tokens": NUMBERS}),
    },
)
CALLS = st.lists(
    ODD
    | st.fixed_dictionaries(
        {},
        optional={
            "index": NUMBERS,
            "id": ODD,
            "function": ODD | st.dictionaries(st.sampled_from(["name", "arguments"]), ODD),
        },
    ),
    max_size=2,
)
DELTA = ODD | st.fixed_dictionaries(
    {}, optional={"role": ODD, "content": ODD | st.text(max_size=80), "reasoning": ODD, "tool_calls": ODD | CALLS}
)
CHOICE = st.fixed_dictionaries(
    {"index": st.integers(0, CHOICES - 1), "delta": DELTA},
    optional={"finish_reason": st.sampled_from([None, "stop", "eos", 7]), "logprobs": ODD},
)
EVENT = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(CHOICE, max_size=3), "usage": USAGE, "id": ODD, "created": ODD, "error": ODD}
)
FRAMES = st.lists(
    EVENT.map(lambda event: b"data: " + orjson.dumps(event)) | st.just(b"data: [DONE]") | st.binary(max_size=30),
    max_size=12,
)


def _text(frames: list[dict[str, Any]]) -> bool:
    return any(choice["delta"].get("content") for frame in frames for choice in frame.get("choices", ()))


@given(FRAMES, st.sampled_from([b"\n\n", b"\r\n\r\n"]), st.integers(1, 200), st.booleans())
def test_any_stream(frames: list[bytes], ends: bytes, size: int, vllm: bool) -> None:
    shape = AnswerShape(True, "chatcmpl-1", "ours", 1, CHOICES)
    bounds = CountBounds(prompts=(PROMPT,), guesses=(10,), choices=CHOICES, max_tokens=MAX_TOKENS)
    events = ServerEvents(shape, AnswerCount(bounds), ("theirs", "host"), tells_of_choice=vllm)
    body = b"".join(frame + ends for frame in frames)
    sent = b"".join(events.feed(body[at : at + size]) for at in range(0, len(body), size)) + events.ended()
    answer = Answer(include_usage=True, choices_per_prompt=CHOICES)
    answer.feed(sent)
    usage = answer.usage
    assert 0 <= usage.cached_tokens <= usage.prompt_tokens <= PROMPT
    assert 0 <= usage.completion_tokens <= CHOICES * MAX_TOKENS
    told = [frame.removeprefix("data: ") for frame in sent.decode().split("\n\n")]
    read = [orjson.loads(frame) for frame in told if frame not in {"", "[DONE]"}]
    assert all(frame["model"] == "ours" for frame in read if "error" not in frame)
    if _text(read):
        assert usage.completion_tokens > 0
