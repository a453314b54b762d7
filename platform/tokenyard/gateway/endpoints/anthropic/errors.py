"""Errors as Anthropic's API tells them. The HTTP statuses stay ours: its SDKs try again by them and by our headers."""

import msgspec
from msgspec import UNSET, UnsetType

from tokenyard.core.errors import ErrorBody, QuotaExceeded, TokenyardError, error_body
from tokenyard.web.errors import ErrorShape

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OTHERWISE = {4: "invalid_request_error", 5: "api_error"}


class AnthropicErrorDetails(msgspec.Struct):
    """`error_code` is the code that the OpenAI-compatible endpoints tell."""

    error_code: str


class AnthropicError(msgspec.Struct):
    """What went wrong; the message names the field to blame."""

    type: str
    message: str
    details: AnthropicErrorDetails | UnsetType = UNSET


class AnthropicErrorBody(msgspec.Struct, tag_field="type", tag="error"):
    """The body of every reply that is an error, and the last event of a stream that failed."""

    error: AnthropicError
    request_id: str


def anthropic_error(error: TokenyardError, request_id: str) -> bytes:
    """Return the JSON body of `error`."""
    return as_anthropic(int(error.status), error_body(error), request_id)


def as_anthropic(status: int, body: bytes, request_id: str) -> bytes:
    """Return the body of an error of ours, which an OpenAI-compatible endpoint answered with `status`."""
    told = msgspec.json.decode(body, type=ErrorBody).error
    kind = "billing_error" if told.type == QuotaExceeded.type else _TYPES.get(status, _OTHERWISE[status // 100])
    details = UNSET if told.code is None else AnthropicErrorDetails(told.code)
    return msgspec.json.encode(AnthropicErrorBody(AnthropicError(kind, told.message, details), request_id))


ANTHROPIC_ERRORS = ErrorShape(AnthropicErrorBody, anthropic_error, ("x-request-id", "request-id"))
