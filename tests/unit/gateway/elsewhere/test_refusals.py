"""What a server elsewhere refuses, and when it is asked again."""

import orjson
import pytest

from tokenyard.core.model_files.sources import ServerSource
from tokenyard.gateway.elsewhere.back_off import BackOff
from tokenyard.gateway.elsewhere.errors import private_words, refusal_told, status_told

PRIVATE = private_words(ServerSource("https://models.example/v1", "their-model"))


@pytest.mark.parametrize(
    ("theirs", "told"),
    [(200, 200), (400, 400), (413, 413), (422, 422), (500, 500)]
    + [(status, 503) for status in (201, 301, 401, 402, 403, 404, 408, 429, 502, 503, 504, 529)],
)
def test_what_is_between_them_and_us_is_no_fault_of_the_request(theirs: int, told: int) -> None:
    assert status_told(theirs) == told


def _message(body: bytes) -> str:
    return str(orjson.loads(refusal_told(body, PRIVATE, "ours"))["error"]["message"])


@pytest.mark.parametrize(
    "said",
    [
        "Rate limit reached for organization org-abc on tokens per min",
        "Incorrect API key provided: sk-abc***",
        "You exceeded your current quota, please check your plan and billing details.",
        "See https://models.example/docs",
        "Ask sales@models.example",
        "The project proj_5 has no access",
    ],
)
def test_what_concerns_our_account_is_not_shown(said: str) -> None:
    assert _message(orjson.dumps({"error": {"message": said}})) == ""


def test_what_helps_is_shown_under_our_name() -> None:
    said = "their-model does not support 'logprobs'."
    assert _message(orjson.dumps({"error": {"message": said}})) == "ours does not support 'logprobs'."
    assert _message(orjson.dumps({"error": said})) == "ours does not support 'logprobs'."
    assert _message(orjson.dumps({"object": "error", "message": "too long"})) == "too long"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": 5}', b'{"error": {"message": {}}}', b"\xff", b"[" * 9999]
)
def test_what_is_no_error_of_openais_says_nothing(body: bytes) -> None:
    assert _message(body) == ""


class _Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_failure_after_a_pause_doubles_the_next_up_to_a_bound() -> None:
    time = _Time()
    back_off, waits = BackOff(time), []
    for _ in range(6):
        back_off.failed("a", None)
        back_off.failed("a", None)  # of the same moment
        waits.append(back_off.wait_s("a"))
        time.now += waits[-1]
        assert back_off.wait_s("a") == 0
    assert waits == [1, 2, 4, 8, 15, 15]
    back_off.answered("a")
    back_off.failed("a", None)
    assert back_off.wait_s("a") == 1
    assert back_off.wait_s("b") == 0


@pytest.mark.parametrize(("said", "waited"), [(7.0, 7), (0.0, 1), (86_400.0, 60)])
def test_it_is_left_alone_as_long_as_it_says_within_bounds(said: float, waited: float) -> None:
    back_off = BackOff(_Time())
    back_off.failed("a", said)
    assert back_off.wait_s("a") == waited
