"""Refuses, before anything of it is read or looked up, what no route of ours could take."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenyard.core.errors import InvalidRequest, PayloadTooLarge, RateLimited, TokenyardError, Unavailable
from tokenyard.web.client_address import address_of, network_of
from tokenyard.web.errors import error_response

MAX_BODY_BYTES = 1024 * 1024
BODIES_BYTES, BODIES_OF_ONE_BYTES = 32 * MAX_BODY_BYTES, 8 * MAX_BODY_BYTES
NO_NUL = r"^[^\x00]*$"
"""The pattern of texts in bodies that reach SQL: PostgreSQL cannot even be asked for a text with a NUL."""


class RequestGuard:
    """An outermost layer: bodies are read whole before the caller is known, so they are bounded here.

    `streaming_paths` are the routes that read their body piece by piece and bound it themselves.
    """

    def __init__(self, app: ASGIApp, *, streaming_paths: Collection[str] = ()) -> None:
        self._app = app
        self._streaming = frozenset(streaming_paths)
        self._bodies = _Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        streaming = scope["path"] in self._streaming
        try:
            _check(scope, streaming=streaming)
            with self._bodies.under_way(network_of(address_of(scope)), 0 if streaming else _body_bytes(scope)):
                await self._app(scope, receive if streaming else _bounded(receive), send)
        except _Refused as refused:
            await error_response(refused.error)(scope, receive, send)


class _Refused(Exception):
    def __init__(self, error: TokenyardError) -> None:
        super().__init__(error.message)
        self.error = error


class _Bodies:
    """The bytes that bodies under way may have, by who sends them and in all."""

    def __init__(self) -> None:
        self._all = 0
        self._of: Counter[str] = Counter()

    @contextmanager
    def under_way(self, network: str, size: int) -> Iterator[None]:
        if size == 0:
            yield
            return
        if self._of[network] + size > BODIES_OF_ONE_BYTES:
            message = "Too many uploads from your address are under way. Please try again shortly."
            raise _Refused(RateLimited(message, headers={"retry-after": "1"}))
        if self._all + size > BODIES_BYTES:
            raise _Refused(Unavailable("The server is overloaded. Please try again shortly."))
        self._all += size
        self._of[network] += size
        try:
            yield
        finally:
            self._all -= size
            self._of[network] -= size
            if not self._of[network]:
                del self._of[network]


def _check(scope: Scope, *, streaming: bool) -> None:
    # PostgreSQL cannot even be asked for a text with a NUL.
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise _Refused(InvalidRequest("The URL holds a NUL character."))
    for name, value in scope["headers"]:
        if name == b"content-length" and not streaming and (not value.isdigit() or _over(value)):
            raise _Refused(_too_large())


def _body_bytes(scope: Scope) -> int:
    """Return how many bytes the body may have."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return MAX_BODY_BYTES
    return int(headers.get(b"content-length", b"0"))


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
