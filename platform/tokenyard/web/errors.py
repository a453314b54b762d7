"""Answers every error of an app in OpenAI's shape; other shapes are for those who speak other protocols."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from tokenyard.core.errors import ErrorBody, InvalidRequest, NotFound, TokenyardError, error_body

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ErrorShape:
    """How a protocol tells errors: `body` writes one, with the request's id, as `schema` describes it.

    Every reply carries the request's id in the headers `id_headers`.
    """

    schema: type[msgspec.Struct]
    body: Callable[[TokenyardError, str], bytes]
    id_headers: tuple[str, ...] = ("x-request-id",)


OPENAI_ERRORS = ErrorShape(ErrorBody, lambda error, _request_id: error_body(error))


class RefusedRequest(HTTPException):
    """Carries an error of ours out of where FastAPI reads a body: it passes only its own kind on from there."""

    def __init__(self, error: TokenyardError) -> None:
        super().__init__(error.status, error.message, error.headers)
        self.error = error


def error_response(error: TokenyardError) -> Response:
    return Response(error_body(error), error.status, error.headers, "application/json")


def install_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every error in OpenAI's shape; an unforeseen one shows nothing of our inside."""

    async def known(_request: Request, error: Exception) -> Response:
        assert isinstance(error, TokenyardError)
        return error_response(error)

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedRequest)
        return error_response(error.error)

    async def malformed(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:]) or None
        where = f"{param}: " if param else ""
        return error_response(InvalidRequest(f"{where}{first['msg']}", param=param))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == NotFound.status:
            return error_response(NotFound(f"Unknown request URL: {request.method} {request.scope['path']}"))
        message = str(error.detail)
        if error.status_code == 405:
            message = f"Not allowed to {request.method} on {request.scope['path']}."
        answer = InvalidRequest(message)
        answer.status = error.status_code
        answer.headers.update(error.headers or {})
        if error.status_code == 405:
            answer.headers["Allow"] = _allowed(request)
        return error_response(answer)

    async def unforeseen(request: Request, error: Exception) -> Response:
        _LOG.error("request %s failed", getattr(request.state, "request_id", "without id"), exc_info=error)
        return error_response(TokenyardError("The server had an error while processing your request."))

    app.add_exception_handler(TokenyardError, known)
    app.add_exception_handler(RefusedRequest, refused)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unforeseen)


def _allowed(request: Request) -> str:
    """Return every method of the path: the router names those of its first route alone.

    Where a route names the path word for word, those that would take its last part for an id are not meant.
    """
    matching = [
        route
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    literal = [route for route in matching if route.path == request.scope["path"]]
    return ", ".join(sorted({method for route in literal or matching for method in route.methods or ()}))
