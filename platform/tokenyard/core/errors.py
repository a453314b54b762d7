"""Every error a user can meet, as one tree, and the one body in which all of them are told: OpenAI's.

TokenyardError
  + InvalidRequest            400 invalid_request_error
      - ContextLengthExceeded 400 context_length_exceeded
  + Unauthenticated           401 invalid_api_key
  + PermissionDenied          403
  + NotFound                  404
      - ModelNotFound         404 model_not_found
  + Conflict                  409
  + Gone                      410
  + PayloadTooLarge           413
  + IdempotencyKeyReused      422
  + RateLimited               429 rate_limit_exceeded, may be retried
  + QuotaExceeded             429 insufficient_quota, must not be retried
  + ModelFailed               500
  + UpstreamFailed            502, may be retried
  + Unavailable               503, may be retried
  + TimedOut                  504
"""

import math
from collections.abc import Mapping

import msgspec


class TokenyardError(Exception):
    """Base of the tree. `message` is shown to the user, so it never holds internals or secrets."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        if code is not None:
            self.code = code


class InvalidRequest(TokenyardError):
    """The request itself is wrong; `param` names the field."""

    status = 400
    type = "invalid_request_error"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and requested completion do not fit the model's context."""

    code = "context_length_exceeded"


class Unauthenticated(TokenyardError):
    """No key, or not a valid one."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class PermissionDenied(TokenyardError):
    """The key is valid but may not do this."""

    status = 403
    type = "invalid_request_error"
    code = "permission_denied"


class NotFound(TokenyardError):
    """No such thing, or it belongs to somebody else: the two look the same."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """No such model for this organization."""

    code = "model_not_found"


class Conflict(TokenyardError):
    """The thing is in a state that does not allow this."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class Gone(TokenyardError):
    """The answer was given once and is not kept any more; asking again cannot help."""

    status = 410
    type = "invalid_request_error"
    code = "gone"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code, headers={"x-should-retry": "false"})


class PayloadTooLarge(TokenyardError):
    """The body is over a stated size."""

    status = 413
    type = "invalid_request_error"
    code = "payload_too_large"


class IdempotencyKeyReused(TokenyardError):
    """The idempotency key was used for another request."""

    status = 422
    type = "invalid_request_error"
    code = "idempotency_key_reused"


class RateLimited(TokenyardError):
    """A rate limit is reached; `retry_after_s` says when to come back, None that it will never help.

    `room` is how much there is of what does not suffice: tokens, or nano-dollars; None where nothing would help.
    """

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"
    room: int | None = None

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = 1.0,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        when = {"x-should-retry": "false"} if retry_after_s is None else _retry_after(retry_after_s)
        super().__init__(message, code=code, headers={**(headers or {}), **when})


class BudgetInUse(RateLimited):
    """A budget would cover it, were it not for what other requests hold or have not been charged for yet."""


class QuotaExceeded(TokenyardError):
    """A budget is spent. Retrying cannot help, and the reply says so. `room` is what is left, in nano-dollars."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    room: int | None = None

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message, code=code, param=param, headers={"x-should-retry": "false"})


class ModelFailed(TokenyardError):
    """The model server failed at this request and is well otherwise; `certain` says that another one did, too."""

    code = "model_failed"

    def __init__(self, message: str, *, certain: bool = False) -> None:
        super().__init__(message, headers={"x-should-retry": "false"} if certain else None)


class UpstreamFailed(TokenyardError):
    """The model server was lost."""

    status = 502
    code = "upstream_failed"


class Unavailable(TokenyardError):
    """Not able to serve now; `retry_after_s` says when to come back."""

    status = 503
    code = "server_is_overloaded"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, code: str | None = None) -> None:
        super().__init__(message, code=code, headers=_retry_after(retry_after_s))


class TimedOut(TokenyardError):
    """The model's answer, or more of it, did not come in time; `certain` says that another try would take as long."""

    status = 504
    code = "timeout"

    def __init__(self, message: str, *, certain: bool = False) -> None:
        super().__init__(message, headers={"x-should-retry": "false"} if certain else None)


def _retry_after(seconds: float) -> dict[str, str]:
    # Whole seconds are HTTP's; the SDKs of OpenAI look for milliseconds first.
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(math.ceil(seconds * 1000))}


class ErrorDetail(msgspec.Struct, frozen=True):
    """What went wrong. `param` names the field to blame, `code` is for programs."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every reply that is an error."""

    error: ErrorDetail


_ENCODER = msgspec.json.Encoder()


def error_body(error: TokenyardError) -> bytes:
    """Return the JSON body of `error`."""
    param = None if error.param is None else _encodable(error.param)
    return _ENCODER.encode(ErrorBody(ErrorDetail(_encodable(error.message), error.type, param, error.code)))


def _encodable(text: str) -> str:
    # A client's own words may hold half a surrogate pair, which no UTF-8 can carry.
    return text.encode("utf-8", "replace").decode()
