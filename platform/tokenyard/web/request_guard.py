"""Refuses what no route of ours could take: before it is read where its head shows that, else as its body comes."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenyard.core.errors import InvalidRequest, PayloadTooLarge, RateLimited, Unavailable
from tokenyard.web.client_address import address_of, network_of
from tokenyard.web.errors import RefusedRequest, error_response
from tokenyard.web.network_pace import Allowance, NetworkPace

MAX_BODY_BYTES = 1024 * 1024
BODIES_BYTES, BODIES_OF_ONE_BYTES = 32 * MAX_BODY_BYTES, 8 * MAX_BODY_BYTES
# Of the event loop's time, for what a network asks of the control plane: 300 requests in a second, or 30 kB that were
# wrong, of which each byte may take that long: all that is wrong with a body is found before the first is told. All
# networks that ask for much have as much as three of them.
EACH, TOGETHER, REQUEST_S, BYTE_S = Allowance(0.03, 0.1), Allowance(0.1, 0.3), 0.0001, 1e-6
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
        self._pace = NetworkPace(EACH, TOGETHER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        network = network_of(address_of(scope))
        self._pace.took(network, REQUEST_S)
        if wait_s := self._pace.wait_s(network):
            await asyncio.sleep(wait_s)
        streaming = scope["path"] in self._streaming
        try:
            _check(scope, streaming=streaming)
        except RefusedRequest as refused:
            await error_response(refused.error)(scope, receive, send)
            return
        if streaming:
            await self._app(scope, receive, send)
            return
        with self._bodies.under_way(network) as body:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                    self._pace.took(network, body.held * BYTE_S)
                await send(message)

            await self._app(scope, _bounded(receive, body.came), answer)


class _Bodies:
    """What has come of the bodies under way, by who sends them and in all; what was only announced costs nobody."""

    def __init__(self) -> None:
        self._all = 0
        self._of: Counter[str] = Counter()

    @contextmanager
    def under_way(self, network: str) -> Iterator["_Body"]:
        body = _Body(self, network)
        try:
            yield body
        finally:
            self.add(network, -body.held)
            if not self._of[network]:
                del self._of[network]

    def add(self, network: str, size: int) -> None:
        self._all += size
        self._of[network] += size

    def check(self, network: str, size: int) -> None:
        free = BODIES_BYTES - self._all
        if size > free:
            raise RefusedRequest(Unavailable("The server is overloaded. Please try again shortly."))
        # As much as is free and no more, so that a few networks together leave some to the next.
        if size and self._of[network] + size > min(BODIES_OF_ONE_BYTES, free):
            message = "Too many uploads from your address are under way. Please try again shortly."
            raise RefusedRequest(RateLimited(message))


class _Body:
    """What has come of one; `came` is to be told of the bytes of each part as it comes."""

    def __init__(self, bodies: _Bodies, network: str) -> None:
        self._bodies = bodies
        self._network = network
        self.held = 0

    def came(self, size: int) -> None:
        self._bodies.check(self._network, size)
        self.held += size
        self._bodies.add(self._network, size)


def _check(scope: Scope, *, streaming: bool) -> None:
    # PostgreSQL cannot even be asked for a text with a NUL.
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise RefusedRequest(InvalidRequest("The URL holds a NUL character."))
    for name, value in scope["headers"]:
        if name == b"content-length" and not streaming and (not value.isdigit() or _over(value)):
            raise RefusedRequest(_too_large())


def _over(length: bytes) -> bool:
    return len(length.lstrip(b"0")) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES


def _bounded(receive: Receive, came: Callable[[int], None]) -> Receive:
    size = 0

    async def next_message() -> Message:
        nonlocal size
        message = await receive()
        part = len(message.get("body", b""))
        size += part
        if size > MAX_BODY_BYTES:
            raise RefusedRequest(_too_large())
        came(part)
        return message

    return next_message


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is over the limit of {MAX_BODY_BYTES} bytes.")
