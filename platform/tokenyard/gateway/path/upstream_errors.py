"""Turns what a replica answers instead of tokens into our errors, without showing the inside."""

import re

import msgspec

from tokenyard.core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    RateLimited,
    TokenyardError,
    Unavailable,
    UpstreamFailed,
)

MAX_MESSAGE_CHARS = 400
# Words that only our inside would use: paths, modules, addresses, traces.
_INSIDE = re.compile(
    r"vllm|pydantic|traceback|torch|ray\.|/\w+/|0x[0-9a-f]{4}|\n|localhost|127\.0\.0\.1|https?:", re.IGNORECASE
)
_CONTEXT = re.compile(r"maximum context length|context length|longer than the maximum model length", re.IGNORECASE)


class _ReplicaError(msgspec.Struct):
    message: str = ""
    param: str | None = None


class _ReplicaErrorBody(msgspec.Struct):
    error: _ReplicaError


_DECODER = msgspec.json.Decoder(_ReplicaErrorBody)


def upstream_error(status: int, body: bytes, retry_after_s: float | None) -> TokenyardError:
    """Return the error to show for a replica's reply of `status`."""
    if status in (429, 503):
        return _busy(status, retry_after_s)
    if status in (400, 413, 422):
        return _refused(_decoded(body))
    return failed()


def failed() -> UpstreamFailed:
    """Return the error for a model server that broke; retrying is right."""
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
        return RateLimited(message, code="slow_down", headers={"retry-after": str(max(1, round(wait_s)))})
    return Unavailable(message, retry_after_s=wait_s)


def _refused(error: _ReplicaError) -> TokenyardError:
    message = error.message.strip()[:MAX_MESSAGE_CHARS]
    shown = message if message and not _INSIDE.search(message) else "The model refused the request's parameters."
    param = error.param if error.param and error.param.isidentifier() else None
    if _CONTEXT.search(message):
        return ContextLengthExceeded(shown, param=param)
    return InvalidRequest(shown, param=param)
