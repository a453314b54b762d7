"""Answers of a replica that are not the engine's, in the shape of OpenAI's errors."""

import msgspec
from starlette.responses import Response

from tokenyard.core.errors import TokenyardError


def error_response(error: TokenyardError) -> Response:
    """Return `error` as a response, which is an ASGI app, too."""
    content = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    body = msgspec.json.encode({"error": content})
    return Response(body, error.status, error.headers, media_type="application/json")
