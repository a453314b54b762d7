"""uvicorn's HTTP protocol with bounds on what a client may cost before anybody knows who it is.

Neither uvicorn nor its parser bounds headers, URLs, waiting requests of one connection, or the time that any of it
takes; connections it counts only in all, and refuses them in plain text.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from time import perf_counter
from typing import cast

import prometheus_client
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tokenyard.core.errors import InvalidRequest, TokenyardError, Unavailable
from tokenyard.web.client_address import network_of
from tokenyard.web.edge.bounds import (
    CONNECTION_S,
    EACH,
    FRAMING_BYTES,
    FRAMING_TIMES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_URL_BYTES,
    MAX_WAITING_REQUESTS,
    REFUSAL_S,
    SLICE_BYTES,
    TOGETHER,
    HttpBounds,
)
from tokenyard.web.edge.connection_clocks import ConnectionClocks, UnwantedBytes, end_who_takes_nothing
from tokenyard.web.edge.framing import wrong_framing
from tokenyard.web.edge.idle_connections import IdleConnections
from tokenyard.web.edge.leaving import LEAVING
from tokenyard.web.edge.refusals import headers_too_large, too_many_connections, with_status, written
from tokenyard.web.edge.turn_transport import TurnTransport
from tokenyard.web.errors import OPENAI_ERRORS, ErrorShape
from tokenyard.web.network_pace import NetworkPace


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
            timeout_keep_alive=bounds.idle_s,
            timeout_graceful_shutdown=shutdown_s,
        )
        self.bounds = bounds
        self.errors_at = errors_at
        self.clocks = ConnectionClocks(stalled_s=bounds.stalled_s)
        self.idle = IdleConnections()
        self.unwanted = UnwantedBytes(bounds.unwanted_bytes_per_s)
        self.pace = NetworkPace(EACH, TOGETHER)
        self.held = 0  # connections that wait before anything of them is read
        self.clients: Counter[str] = Counter()
        about = "Requests and connections refused before they reached the app, by status."
        self.refusals = prometheus_client.Counter("tokenyard_edge_refusals", about, ("status",), registry=registry)


class _Dropped(list[tuple[bytes, bytes]]):
    """Where uvicorn puts trailers: taken for headers, they would pass whoever looks at those on the way to us."""

    def append(self, _header: tuple[bytes, bytes], /) -> None:
        pass


_TRAILERS = _Dropped()


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
        self._shared = bounded = cast(BoundedConfig, config)
        self._bounds, self._clocks, self._clients = bounded.bounds, bounded.clocks, bounded.clients
        self._idle, self._unwanted, self._pace = bounded.idle, bounded.unwanted, bounded.pace
        self._refusals, self._errors_at = bounded.refusals, bounded.errors_at
        self.url = b""
        self._peer = ""
        self._held, self._early = False, b""
        self._turn_began: float | None = None
        self._counted: str | None = None
        self._behind_proxy = False
        self._refusal: TokenyardError | None = None
        self._expects = Expected.REQUEST
        self._received = 0
        self._body_bytes = 0
        self._clocked = False
        self._lost = False
        self._leaving: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(TurnTransport(transport, self.loop))
        end_who_takes_nothing(transport.get_extra_info("socket"), self._bounds.stalled_s)
        address = self.client[0] if self.client else ""
        self._peer = network_of(address)
        self._behind_proxy = self._bounds.proxies.trust(address)
        wait_s = 0.0 if self._behind_proxy else self._pace.wait_s(self._peer)
        self._took(CONNECTION_S)
        if not wait_s:
            self._begin()
        elif self._shared.held < self._bounds.held:
            self._shared.held += 1
            self._held = True
            self.flow.pause_reading()
            self.loop.call_later(wait_s, self._begin_late)
        else:
            self.transport.abort()

    def _begin_late(self) -> None:
        self._shared.held -= 1
        self._held = False
        if self.transport.is_closing():
            return
        if len(self._early) > SLICE_BYTES:  # not all of it was kept
            self.transport.abort()
            return
        self.flow.resume_reading()
        self._begin()
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)

    def _keep_early(self, data: bytes) -> None:
        """Keep what came although reading is paused: uvloop reads once after `connection_made`, whatever that did.

        Who sent more than is kept is ended, but not before its time: it would only come back.
        """
        self.transport.pause_reading()
        self._early = (self._early + data)[: SLICE_BYTES + 1]

    def _begin(self) -> None:
        if not self._behind_proxy and not self._count(self._peer) and not self._count_for_another(self._peer):
            self._refuse(too_many_connections())
        elif len(self.connections) > self._bounds.connections + self._shared.held:
            self._take_the_place_of_another()
        else:
            self._has_more_to_send()

    def _take_the_place_of_another(self) -> None:
        if self._pace.is_pushing(self._peer):
            self.transport.abort()
        # Who says nothing goes before who has been served: else a crowd of such would end everybody else.
        elif self._clocks.end_slowest() or self._idle.end_longest():
            self._has_more_to_send()
        else:
            self._refuse(Unavailable("The server has too many connections. Please try again shortly."))

    def _took(self, seconds: float) -> None:
        """Note time that went into what nobody pays for; who is behind a proxy is not known here."""
        if not self._behind_proxy:
            self._pace.took(self._peer, seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._uncount()
        self._idle.discard(self)
        self._clocks.forget(self)
        super().connection_lost(exc)
        self._lost = True
        if self._leaving is not None:
            self._leaving()

    def tell_of_leaving(self, told: Callable[[], None] | None) -> None:
        self._leaving = told
        if self._lost and told is not None:
            self.loop.call_soon(told)

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._keep_early(data)
            return
        self._turn_began = perf_counter()
        self._receive(data)
        self._turn_began = None

    def _receive(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            if self.transport.is_closing():
                return
            piece = data[start : start + SLICE_BYTES] if len(data) > SLICE_BYTES else data
            self._received += len(piece)
            super().data_received(piece)
            self._after_slice()
        if self._expects is Expected.BODY and self.cycle.response_complete:
            self._unwanted.came(self.transport, len(data))

    def _after_slice(self) -> None:
        if self._expects is Expected.NOTHING:
            self._has_come()
        elif self._expects is Expected.HEADERS and self._has_too_many_headers():
            self._refuse(headers_too_large(MAX_HEADERS, MAX_HEADER_BYTES))
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
        self._idle.discard(self)
        self._expects, self._received = Expected.HEADERS, 0
        self._has_come()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._raise(with_status(InvalidRequest("The URL is too long."), HTTPStatus.REQUEST_URI_TOO_LONG))

    def on_headers_complete(self) -> None:
        # Those that came in one slice are no larger than that.
        if len(self.headers) > MAX_HEADERS or (self._received and self._header_bytes() > MAX_HEADER_BYTES):
            self._raise(headers_too_large(MAX_HEADERS, MAX_HEADER_BYTES))
        if len(self.pipeline) >= MAX_WAITING_REQUESTS:
            self._raise(InvalidRequest("Too many requests were sent without waiting for an answer."))
        if (wrong := wrong_framing(self.parser.get_http_version(), self.headers)) is not None:
            self._raise(wrong)
        if self._behind_proxy:
            self._note_client()
        self.scope["extensions"] = {LEAVING: {"tell": self.tell_of_leaving}}
        super().on_headers_complete()
        self._expects, self._received, self._body_bytes = Expected.BODY, 0, 0
        self.headers = _TRAILERS
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
            if not self.transport.is_closing():
                self._idle.add(self, self._peer)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._clocks.stalls(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._clocks.takes(self)

    def _has_too_many_headers(self) -> bool:
        return self._received > MAX_HEADER_BYTES + SLICE_BYTES or len(self.headers) > MAX_HEADERS

    def _header_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    # What is counted.

    def _note_client(self) -> None:
        forwarded = b",".join(value for name, value in self.headers if name == b"x-forwarded-for")
        peer, port = self.client or ("", 0)
        address = self._bounds.proxies.client(peer, forwarded.decode("latin-1"))
        self.scope["client"] = (address, port)
        self._uncount()
        if address != peer and not self._count(network_of(address)):
            self._raise(too_many_connections())

    def _count(self, network: str) -> bool:
        if self._clients[network] >= self._bounds.connections_of_one:
            return False
        self._clients[network] += 1
        self._counted = network
        return True

    def _count_for_another(self, network: str) -> bool:
        return self._idle.end_longest(network) and self._count(network)

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
            self._refuse(with_status(InvalidRequest(message), HTTPStatus.REQUEST_TIMEOUT))

    def end_idle(self) -> None:
        self._uncount()
        self.transport.close()

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
        parsing_s = 0.0 if self._turn_began is None else perf_counter() - self._turn_began
        self._took(REFUSAL_S + parsing_s)
        self._refusals.labels(str(int(error.status))).inc()
        if self._may_answer():
            self.transport.write(written(error, self._errors_at(self.url)))
        self.transport.close()

    def _may_answer(self) -> bool:
        """Tell whether the next bytes that the client gets are of the answer to what it is sending now."""
        under_way = self.cycle is not None and not self.cycle.response_complete
        own = self._expects is Expected.BODY and not self.cycle.response_started
        return not self.pipeline and (own or not under_way)
