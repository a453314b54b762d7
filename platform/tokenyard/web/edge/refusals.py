"""What is told to a connection that is refused before the app is asked."""

from http import HTTPStatus

from tokenyard.core.errors import InvalidRequest, RateLimited, TokenyardError
from tokenyard.core.ids import new_request_id
from tokenyard.web.errors import ErrorShape


def too_many_connections() -> RateLimited:
    message = "Too many connections from your address. Please try again shortly."
    return RateLimited(message)


def headers_too_large(headers: int, size: int) -> InvalidRequest:
    message = f"The request's headers are over the limit of {headers} headers or {size} bytes."
    return with_status(InvalidRequest(message), HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


def with_status(error: InvalidRequest, status: HTTPStatus) -> InvalidRequest:
    error.status = status
    return error


def written(error: TokenyardError, shape: ErrorShape) -> bytes:
    request = new_request_id()
    body = shape.body(error, request)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **dict.fromkeys(shape.id_headers, request),
        **error.headers,
    }
    lines = [f"HTTP/1.1 {int(error.status)} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
