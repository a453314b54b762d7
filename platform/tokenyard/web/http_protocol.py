"""uvicorn's HTTP protocol with bounds on what a client may cost before anybody knows who it is.

Neither uvicorn nor its parser bounds headers, URLs, waiting requests of one connection, or the time that any of it
takes; connections it counts only in all, and refuses them in plain text.
"""

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import cast

import prometheus_client
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tokenyard.core.errors import InvalidRequest, RateLimited, TokenyardError, Unavailable
from tokenyard.core.ids import new_request_id
from tokenyard.web.client_address import TrustedProxies, network_of
from tokenyard.web.connection_clocks import ConnectionClocks
from tokenyard.web.errors import OPENAI_ERRORS, ErrorShape

MAX_URL_BYTES = 8 * 1024
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_WAITING_REQUESTS = 16
# What chunks may cost on top of what is in them: clients that send little at a time are slow, not wrong.
FRAMING_BYTES, FRAMING_TIMES = 64 * 1024, 8
SLICE_BYTES = 16 * 1024


@dataclass(frozen=True)
class HttpBounds:
    """`upload_s` is what a body may take however small it is; after that it must come at `upload_bytes_per_s`.

    A client's connections are those of its address, or of its /64 network. Who comes through a trusted proxy is known
    by `X-Forwarded-For`, and for it the requests under way count instead.
    """

    connections: int = 4096
    connections_of_one: int = 512
    header_s: float = 10.0
    upload_s: float = 20.0
    upload_bytes_per_s: float = 16 * 1024
    stalled_s: float = 60.0
    proxies: TrustedProxies = field(default_factory=lambda: TrustedProxies(()))


class Expected(Enum):
    """What a connection is to receive next."""

    REQUEST = "request"
    HEADERS = "headers"
    BODY = "body"
    NOTHING = "nothing"


class BoundedConfig(uvicorn.Config):
    """uvicorn's settings for an app whose connections keep to `bounds`.

    `errors_at` tells how an error is told to who asks for a URL, of which only the beginning may have come.
    """

    def __init__(
        self,
        app: ASGIApp,
        bounds: HttpBounds,
        registry: CollectorRegistry,
        *,
        host: str,
        port: int,
        shutdown_s: int,
        errors_at: Callable[[bytes], ErrorShape] = lambda _url: OPENAI_ERRORS,
    ) -> None:
        super().__init__(
            app,
            host=host,
            port=port,
            # A connection that becomes a WebSocket would leave this protocol, and the bounds with it.
            http=BoundedHttpProtocol,
            ws="none",
            # Warnings are about what clients sent.
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=shutdown_s,
        )
        self.bounds = bounds
        self.errors_at = errors_at
        self.clocks = ConnectionClocks(stalled_s=bounds.stalled_s)
        self.clients: Counter[str] = Counter()
        about = "Requests and connections refused before they reached the app, by status."
        self.refusals = prometheus_client.Counter("tokenyard_edge_refusals", about, ("status",), registry=registry)


class Refused(Exception):
    """Ends the parser's work on a request that is refused."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        bounded = cast(BoundedConfig, config)
        self._bounds, self._clocks, self._clients = bounded.bounds, bounded.clocks, bounded.clients
        self._refusals, self._errors_at = bounded.refusals, bounded.errors_at
        self.url = b""
        self._counted: str | None = None
        self._behind_proxy = False
        self._refusal: TokenyardError | None = None
        self._expects = Expected.REQUEST
        self._received = 0
        self._body_bytes = 0
        self._clocked = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _end_who_takes_nothing(transport.get_extra_info("socket"), self._bounds.stalled_s)
        address = self.client[0] if self.client else ""
        self._behind_proxy = self._bounds.proxies.trust(address)
        if not self._behind_proxy and not self._count(address):
            self._refuse(_too_many())
        elif len(self.connections) > self._bounds.connections and not self._clocks.end_slowest():
            self._refuse(Unavailable("The server has too many connections. Please try again shortly."))
        else:
            self._has_more_to_send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._uncount()
        self._clocks.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            if self.transport.is_closing():
                return
            piece = data[start : start + SLICE_BYTES] if len(data) > SLICE_BYTES else data
            self._received += len(piece)
            super().data_received(piece)
        self._after_data()

    def _after_data(self) -> None:
        if self._expects is Expected.NOTHING:
            self._has_come()
        elif self._expects is Expected.HEADERS and self._received > MAX_HEADER_BYTES + SLICE_BYTES:
            self._refuse(_headers_too_large())
        elif self._expects is Expected.BODY and self._received > FRAMING_BYTES + FRAMING_TIMES * self._body_bytes:
            self._refuse(InvalidRequest("The request body is sent in too small chunks, or has trailers."))
        else:
            self._has_more_to_send()

    def _has_more_to_send(self) -> None:
        self._clocked = True
        self._clocks.sends(self)

    def _has_come(self) -> None:
        if self._clocked:  # most requests come whole, and need no clock
            self._clocked = False
            self._clocks.sent(self)

    # What the parser finds.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expects, self._received = Expected.HEADERS, 0
        self._has_come()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._raise(_status(InvalidRequest("The URL is too long."), HTTPStatus.REQUEST_URI_TOO_LONG))

    def on_headers_complete(self) -> None:
        # Those that came in one slice are no larger than that.
        if len(self.headers) > MAX_HEADERS or (self._received and self._header_bytes() > MAX_HEADER_BYTES):
            self._raise(_headers_too_large())
        if len(self.pipeline) >= MAX_WAITING_REQUESTS:
            self._raise(InvalidRequest("Too many requests were sent without waiting for an answer."))
        if self._behind_proxy:
            self._note_client()
        super().on_headers_complete()
        self._expects, self._received, self._body_bytes = Expected.BODY, 0, 0
        self._has_come()
        if self.parser.should_upgrade():
            # It is served as if it had not asked; what comes after it may be no HTTP.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        # An early answer may be over already; then nobody else will say that a request may come.
        self._expects = Expected.REQUEST if self.cycle.response_complete else Expected.NOTHING
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._behind_proxy:
            self._uncount()
        if self._expects is Expected.NOTHING and not self.pipeline:
            self._expects = Expected.REQUEST
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._clocks.stalls(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._clocks.takes(self)

    def _header_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    # What is counted.

    def _note_client(self) -> None:
        forwarded = b",".join(value for name, value in self.headers if name == b"x-forwarded-for")
        peer, port = self.client or ("", 0)
        address = self._bounds.proxies.client(peer, forwarded.decode("latin-1"))
        self.scope["client"] = (address, port)
        self._uncount()
        if address != peer and not self._count(address):
            self._raise(_too_many())

    def _count(self, address: str) -> bool:
        network = network_of(address)
        if self._clients[network] >= self._bounds.connections_of_one:
            return False
        self._clients[network] += 1
        self._counted = network
        return True

    def _uncount(self) -> None:
        if self._counted is None:
            return
        self._clients[self._counted] -= 1
        if not self._clients[self._counted]:
            del self._clients[self._counted]
        self._counted = None

    # How a connection is ended.

    @property
    def held_up_by_us(self) -> bool:
        return self.flow.read_paused

    def may_wait_s(self) -> float:
        if self._expects is not Expected.BODY:
            return self._bounds.header_s
        if self.cycle.response_complete:
            return self._bounds.header_s  # nothing of it is wanted, but a reset may take the answer away
        return self._bounds.upload_s + self._received / self._bounds.upload_bytes_per_s

    def out_of_time(self) -> None:
        if self._expects is Expected.REQUEST or (self._expects is Expected.BODY and self.cycle.response_complete):
            self.transport.close()
        else:
            message = "The request did not arrive in time."
            self._refuse(_status(InvalidRequest(message), HTTPStatus.REQUEST_TIMEOUT))

    def abort(self) -> None:
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or InvalidRequest(msg))

    def _raise(self, error: TokenyardError) -> None:
        self._refusal = error
        raise Refused  # the parser passes it on as an error of its own, which ends in `send_400_response`

    def _refuse(self, error: TokenyardError) -> None:
        if self.transport.is_closing():
            return
        self._refusals.labels(str(int(error.status))).inc()
        if self._may_answer():
            self.transport.write(_answer(error, self._errors_at(self.url)))
        self.transport.close()

    def _may_answer(self) -> bool:
        """Tell whether the next bytes that the client gets are of the answer to what it is sending now."""
        under_way = self.cycle is not None and not self.cycle.response_complete
        own = self._expects is Expected.BODY and not self.cycle.response_started
        return not self.pipeline and (own or not under_way)


def _end_who_takes_nothing(connection: socket.socket, after_s: float) -> None:
    """Leave to the kernel what is written and not taken, also where it is too little to pause writing, or we closed."""
    if sys.platform == "linux" and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(after_s * 1000))


def _too_many() -> RateLimited:
    message = "Too many connections from your address. Please try again shortly."
    return RateLimited(message)


def _headers_too_large() -> InvalidRequest:
    message = f"The request's headers are over the limit of {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes."
    return _status(InvalidRequest(message), HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


def _status(error: InvalidRequest, status: HTTPStatus) -> InvalidRequest:
    error.status = status
    return error


def _answer(error: TokenyardError, shape: ErrorShape) -> bytes:
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
