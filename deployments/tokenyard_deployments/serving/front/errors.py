"""Answers of a replica that are not the engine's."""

from starlette.responses import Response

from tokenyard.core.errors import TokenyardError, error_body


def error_response(error: TokenyardError) -> Response:
    """Return `error` as a response, which is an ASGI app, too."""
    return Response(error_body(error), error.status, error.headers, "application/json")
