"""What is wrong with a body, in OpenAI's words: every way in which `msgspec` words its findings."""

import time
from collections.abc import Callable

import orjson
import pytest

from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS

MESSAGE = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("wrong", "param", "code", "said"),
    [
        ({"messages": None}, "messages", "invalid_type", "expected an array, but got null"),
        ({"messages": [5]}, "messages[0]", "invalid_type", "expected an object, but got an integer"),
        ({"messages": [{}]}, "messages[0].role", "missing_required_parameter", "Missing required"),
        ({"messages": [{**MESSAGE, "x": 1}]}, "messages[0].x", "unknown_parameter", "Unknown parameter"),
        ({"messages": [{**MESSAGE, "content": 5}]}, "messages[0].content", "invalid_type", "a string or an array"),
        ({"messages": [{**MESSAGE, "audio": {}}]}, "messages[0].audio", "unsupported_parameter", "not offered here"),
        ({"messages": [MESSAGE] * 4097}, "messages", "array_above_max_length", "maximum length 4096"),
        ({"tools": []}, "tools", "empty_array", "minimum length 1"),
        ({"functions": []}, "functions", "unsupported_parameter", "use 'tools'"),
        ({"n": 0}, "n", "integer_below_min_value", "a value >= 1"),
        ({"n": 129}, "n", "integer_above_max_value", "a value <= 128"),
        ({"n": 1.5}, "n", "invalid_type", "expected an integer, but got a decimal"),
        ({"temperature": -1}, "temperature", "decimal_below_min_value", "below minimum"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value", "above maximum"),
        ({"stream": 1}, "stream", "invalid_type", "expected a boolean"),
        ({"stop": [""]}, "stop[0]", "empty_string", "minimum length 1"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value", "regex"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "decimal_above_max_value", "<= 100"),
        ({"verbosity": "high"}, "verbosity", "invalid_value", "'high'"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value", "'xml'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
            "Missing required",
        ),
        ({"a" * 1000: 1}, "a" * 64, "unknown_parameter", "Unknown parameter"),
    ],
)
def test_chat(wrong: dict[str, object], param: str, code: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        CHAT.parse(orjson.dumps({"model": "m", "messages": [MESSAGE], **wrong}))
    assert (refused.value.param, refused.value.code) == (param, code)
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("wrong", "param", "code"),
    [
        ({"prompt": []}, "prompt", "empty_array"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"prompt": ["a", 5]}, "prompt", "invalid_type"),
        ({"prompt": [[1], []]}, "prompt", "invalid_type"),
        ({"prompt": [-1]}, "prompt", "invalid_type"),
        ({"prompt": ["a"] * 129}, "prompt", "array_above_max_length"),
        ({"n": 2, "best_of": 1}, "best_of", "invalid_value"),
        ({"n": 2, "best_of": 3}, "best_of", "unsupported_parameter"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ],
)
def test_completions(wrong: dict[str, object], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        COMPLETIONS.parse(orjson.dumps({"model": "m", "prompt": "x", **wrong}))
    assert (refused.value.param, refused.value.code) == (param, code)


DEEP = b'{"messages":[{"role":"user","annotations":' + b"[" * 100_000


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"x"', b"\xff", b'{"model":"\xff"}', b'{"model":"\\ud800"}', DEEP],
)
def test_what_is_no_object(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="JSON") as refused:
        CHAT.parse(raw)
    assert refused.value.param is None


LONG = "x - at `$.y`" * 400_000


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({LONG: 1}, LONG[:64]),
        ({"messages": [{**MESSAGE, LONG: 1}]}, f"messages[0].{LONG[:64]}"),
        ({"messages": [{"role": LONG, "content": "x"}]}, "messages[0].role"),
        ({"service_tier": LONG}, "service_tier"),
    ],
    ids=["field", "field within", "one of a few", "tier"],
)
def test_megabytes_that_are_wrong_are_not_looked_through(wrong: dict[str, object], param: str) -> None:
    raw = orjson.dumps({"model": "m", "messages": [MESSAGE], **wrong})

    def refuse() -> None:
        with pytest.raises(InvalidRequest) as refused:
            CHAT.parse(raw)
        assert refused.value.param == param

    assert _own_time_s(refuse) < 30 * _own_time_s(lambda: orjson.loads(raw))


def _own_time_s(work: Callable[[], object]) -> float:
    """Return what `work` takes of this thread's own time, whatever else the machine does."""

    def once() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return min(once() for _ in range(3))
