"""Lets in only those who hold the internal bearer, on every path of the replica."""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from tokenyard.core.errors import Unauthenticated
from tokenyard_deployments.serving.front.errors import error_response

HEADER = b"authorization"


class RequireBearer:
    """The outermost layer. Serve answers its own `/-/healthz` before a request comes here."""

    def __init__(self, app: ASGIApp, bearer: bytes) -> None:
        self._app = app
        self._expected = b"Bearer " + bearer.hex().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._allowed(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await error_response(Unauthenticated("This address is internal."))(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name.lower() == HEADER]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)
