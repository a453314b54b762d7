"""What a replica's refusal becomes."""

import orjson
import pytest

from tokenyard.core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    RateLimited,
    TokenyardError,
    Unavailable,
    UpstreamFailed,
)
from tokenyard.gateway.path.upstream_errors import upstream_error


def _body(message: str, param: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "BadRequestError", "param": param, "code": 400}})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((400, InvalidRequest), (422, InvalidRequest), (401, UpstreamFailed), (404, UpstreamFailed)),
        *((429, RateLimited), (500, UpstreamFailed), (502, UpstreamFailed), (503, Unavailable)),
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
    assert upstream_error(429, b"", 7.4).headers["retry-after"] == "7"
