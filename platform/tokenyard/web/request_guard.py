"""Refuses, before anything of it is read or looked up, what no route of ours could take."""

from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenyard.core.errors import InvalidRequest, PayloadTooLarge, TokenyardError
from tokenyard.web.errors import error_response

MAX_BODY_BYTES = 1024 * 1024
NO_NUL = r"^[^\x00]*$"
"""The pattern of texts in bodies that reach SQL: PostgreSQL cannot even be asked for a text with a NUL."""


class RequestGuard:
    """An outermost layer: bodies are read whole before the caller is known, so they are bounded here.

    `streaming_paths` are the routes that read their body piece by piece and bound it themselves.
    """

    def __init__(self, app: ASGIApp, *, streaming_paths: Collection[str] = ()) -> None:
        self._app = app
        self._streaming = frozenset(streaming_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        streaming = scope["path"] in self._streaming
        refusal = _refusal(scope, streaming=streaming)
        if refusal is not None:
            await error_response(refusal)(scope, receive, send)
        else:
            await self._app(scope, receive if streaming else _bounded(receive), send)


def _refusal(scope: Scope, *, streaming: bool) -> TokenyardError | None:
    # PostgreSQL cannot even be asked for a text with a NUL.
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        return InvalidRequest("The URL holds a NUL character.")
    for name, value in scope["headers"]:
        if name == b"content-length" and not streaming and (not value.isdigit() or _over(value)):
            return _too_large()
    return None


def _over(length: bytes) -> bool:
    return len(length.lstrip(b"0")) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES


def _bounded(receive: Receive) -> Receive:
    size = 0

    async def next_message() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            # FastAPI passes only its own kind of error on from where it reads a body.
            raise HTTPException(PayloadTooLarge.status, _too_large().message)
        return message

    return next_message


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is over the limit of {MAX_BODY_BYTES} bytes.")
