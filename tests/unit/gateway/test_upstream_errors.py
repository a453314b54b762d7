"""What a replica's refusal becomes."""

import orjson
import pytest

from tokenyard.core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelFailed,
    RateLimited,
    TokenyardError,
    Unavailable,
    UpstreamFailed,
)
from tokenyard.core.replica import ENGINE_DEAD
from tokenyard.gateway.path.upstream_errors import frame_error, says_engine_dead, upstream_error


def _body(message: str, param: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "BadRequestError", "param": param, "code": 400}})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((400, InvalidRequest), (422, InvalidRequest), (401, UpstreamFailed), (404, UpstreamFailed)),
        *((429, RateLimited), (500, ModelFailed), (501, ModelFailed), (503, Unavailable)),
    ],
)
def test_kinds(status: int, kind: type[TokenyardError]) -> None:
    assert type(upstream_error(status, b"Internal Server Error: secret", None)) is kind


def test_context() -> None:
    message = "This model's maximum context length is 8 tokens. However, you requested 9 tokens."
    error = upstream_error(400, _body(message, "messages"), None)
    assert isinstance(error, ContextLengthExceeded)
    assert (error.message, error.param) == (message, "messages")


@pytest.mark.parametrize(
    "message",
    ["File /opt/x/y.py", "vllm.engine broke", "1 validation error:\n  {'type'", "at http://10.0.0.1", "Traceback"],
)
def test_nothing_of_the_inside_is_shown(message: str) -> None:
    assert upstream_error(400, _body(message), None).message == "The model refused the request's parameters."


def test_retry_after_is_kept() -> None:
    assert upstream_error(503, b"", 7.0).headers["retry-after"] == "7"
    assert upstream_error(429, b"", 7.4).headers["retry-after"] == "8"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "wrong", "type": "invalid_request_error"}, InvalidRequest),
        ({"message": "wrong", "type": "BadRequestError", "code": 422}, InvalidRequest),
        ({"message": "the model's context length is 8 tokens", "code": 400}, ContextLengthExceeded),
        ({"message": "Internal server error", "type": "server_error", "code": None}, ModelFailed),
        ({"message": "x", "type": "InternalServerError", "code": 500}, ModelFailed),
        ({"message": "x", "code": "400"}, ModelFailed),
        ("a text", ModelFailed),
        (None, ModelFailed),
    ],
)
def test_an_error_in_a_stream_says_itself_whose_fault_it_is(error: object, kind: type[TokenyardError]) -> None:
    assert type(frame_error(orjson.dumps({"error": error}))) is kind


def test_only_one_503_says_that_the_engine_is_dead() -> None:
    dead = orjson.dumps({"error": {"message": "x", "code": ENGINE_DEAD}})
    assert says_engine_dead(503, dead)
    assert not says_engine_dead(500, dead)
    assert not says_engine_dead(503, _body("x"))
    assert not says_engine_dead(503, b"Service Unavailable")
