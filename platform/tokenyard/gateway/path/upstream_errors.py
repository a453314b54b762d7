"""Turns what a replica answers instead of tokens into our errors, without showing the inside.

Three things are told apart: the request is refused (`InvalidRequest`), the model failed at it or has no time for it,
and the replica is lost. Only a lost one is kept from other requests.
"""

import re

import msgspec

from tokenyard.core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelFailed,
    RateLimited,
    TimedOut,
    TokenyardError,
    Unavailable,
    UpstreamFailed,
)
from tokenyard.core.replica import ENGINE_DEAD

MAX_MESSAGE_CHARS = 400
# Words that only our inside would use: paths, modules, addresses, traces.
_INSIDE = re.compile(
    r"vllm|pydantic|traceback|torch|ray\.|/\w+/|0x[0-9a-f]{4}|\n|localhost|127\.0\.0\.1|https?:", re.IGNORECASE
)
_CONTEXT = re.compile(r"maximum context length|context length|longer than the maximum model length", re.IGNORECASE)


class AttemptFailed(Exception):
    """An attempt failed before the client was sent anything; `error` is what to say if no other one helps."""

    def __init__(self, error: TokenyardError, *, lost: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.lost = lost


class _ReplicaError(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _ReplicaErrorBody(msgspec.Struct):
    error: _ReplicaError


_DECODER = msgspec.json.Decoder(_ReplicaErrorBody)


def upstream_error(status: int, body: bytes, retry_after_s: float | None) -> TokenyardError:
    """Return the error to show for a replica's reply of `status`."""
    if status in (429, 503):
        return _busy(status, retry_after_s)
    if status in (400, 413, 422):
        return _refused(_decoded(body))
    return model_failed() if status >= 500 else lost()


def frame_error(frame: bytes) -> TokenyardError:
    """Return the error to show for an event of a stream that says one: its status is 200, so it says whose fault."""
    error = _decoded(frame)
    refused = error.type == "invalid_request_error" or (isinstance(error.code, int) and 400 <= error.code < 500)
    return _refused(error) if refused else model_failed()


def says_engine_dead(status: int, body: bytes) -> bool:
    return status == 503 and _decoded(body).code == ENGINE_DEAD


def model_failed(*, certain: bool = False) -> ModelFailed:
    """Return the error for a request that a model server, well otherwise, failed at; `certain` where two did."""
    return ModelFailed("The model server had an error while processing your request.", certain=certain)


def overdue(*, certain: bool = False) -> TimedOut:
    """Return the error for a reply that did not come in time; `certain` where another try would take as long."""
    return TimedOut("The model did not answer in time.", certain=certain)


def lost() -> UpstreamFailed:
    """Return the error for a model server that was lost; retrying is right."""
    return UpstreamFailed("The model server failed while processing your request. Please try again.")


def _decoded(body: bytes) -> _ReplicaError:
    try:
        return _DECODER.decode(body).error
    except msgspec.MsgspecError:
        return _ReplicaError()


def _busy(status: int, retry_after_s: float | None) -> TokenyardError:
    wait_s = retry_after_s if retry_after_s is not None else 1.0
    message = "The servers of this model are overloaded. Please try again shortly."
    if status == 429:
        return RateLimited(message, code="slow_down", retry_after_s=wait_s)
    return Unavailable(message, retry_after_s=wait_s)


def _refused(error: _ReplicaError) -> TokenyardError:
    message = error.message.strip()[:MAX_MESSAGE_CHARS]
    shown = message if message and not _INSIDE.search(message) else "The model refused the request's parameters."
    param = error.param if error.param and error.param.isidentifier() else None
    if _CONTEXT.search(message):
        return ContextLengthExceeded(shown, param=param)
    return InvalidRequest(shown, param=param)
