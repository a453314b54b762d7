"""A keep-alive HTTP/1.1 connection that sends one POST at a time and hands the answer on as it comes.

The gateway does this for every paid request; a general HTTP client costs several times as much there.
"""

import asyncio
import socket
import sys
from collections import deque
from typing import cast

import httptools

MAX_BUFFERED_BYTES = 128 * 1024
MAX_HEADERS = 100
# A machine that is gone closes no connection. Its kernel answers probes as long as it lives, whatever its programs do.
PROBE_AFTER_S = 15
PROBE_EVERY_S = 5
GONE_AFTER_S = 30


class ConnectionCut(Exception):
    """The connection ended or broke before the answer was complete."""


class AnswerOverdue(Exception):
    """The answer stayed silent too long, or was not complete in time."""


class Http1Connection(asyncio.Protocol):
    """Between two requests the connection is idle; `reusable` says whether it can take another one.

    Where it ends before the answer does, whoever waits gets `ConnectionCut`, and `AnswerOverdue` where time is up.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lost: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._keep_alive = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._complete = False
        self._active = False
        self.answering = False
        self.status = 0
        self.headers: dict[bytes, bytes] = {}

    @property
    def ended(self) -> bool:
        """Whether the answer was read to its end."""
        return self._complete and not self._chunks

    @property
    def reusable(self) -> bool:
        """Whether the last answer was read to its end and the connection stays open."""
        return self.ended and self._keep_alive and self._lost is None

    async def post(self, request: bytes, silence_s: float, deadline: float) -> None:
        """Send a whole request; return when status and headers are there.

        The answer may be silent for `silence_s`, and must be complete at `deadline` of the event loop's time.
        """
        self._reset()
        self._active = True
        self._silence_s = silence_s
        self._deadline = deadline
        self._heard = self._loop.time()
        self._timer = self._loop.call_at(min(self._heard + silence_s, deadline), self._check_time)
        self._transport.write(request)
        while not self.status:
            await self._wait()

    async def chunk(self) -> bytes:
        """Return the next bytes of the body, all that is there; b"" at the end."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._wait()
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """End the connection at once, and with it the request that is under way."""
        self._stop_timer()
        self._transport.abort()

    async def _wait(self) -> None:
        if isinstance(self._lost, AnswerOverdue):
            raise self._lost
        if self._lost is not None:
            raise ConnectionCut(str(self._lost)) from self._lost
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_time(self) -> None:
        now = self._loop.time()
        # Paused it is our side that does not read.
        silent_at = (now if self._paused else self._heard) + self._silence_s
        if now >= self._deadline:
            self._fail(AnswerOverdue("not complete in time"))
        elif now >= silent_at:
            self._fail(AnswerOverdue(f"silent for {now - self._heard:.0f} s"))
        else:
            self._timer = self._loop.call_at(min(silent_at, self._deadline), self._check_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: Exception) -> None:
        if self._lost is None:
            self._lost = error
        self._stop_timer()
        self._transport.abort()
        self._wake()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        _notice_lost_machine(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self.answering = True
        if not self._active:
            self._fail(ConnectionCut("data that nobody asked for"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)
            return
        if self._buffered > MAX_BUFFERED_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionCut("closed by the server"))

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if self._complete:
            raise ConnectionCut("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) < MAX_HEADERS:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        self._complete = True
        self._active = False
        self._keep_alive = self._parser.should_keep_alive()
        self._stop_timer()


def _notice_lost_machine(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY_S)
        # Also for what was sent and never acknowledged.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_AFTER_S * 1000)
