"""A keep-alive HTTP/1.1 connection that sends one POST at a time and hands the answer on as it comes.

The gateway does this for every paid request; a general HTTP client costs several times as much there.
"""

import asyncio
from collections import deque
from typing import cast

import httptools

MAX_BUFFERED_BYTES = 128 * 1024
MAX_HEADERS = 100


class ConnectionCut(Exception):
    """The connection ended, broke, or stayed silent before the answer was complete."""


class Http1Connection(asyncio.Protocol):
    """Between two requests the connection is idle; `reusable` says whether it can take another one.

    Where it ends before the answer does, whoever waits gets `ConnectionCut`.
    """

    def __init__(self, silence_timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._silence_timeout_s = silence_timeout_s
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
        self.status = 0
        self.headers: dict[bytes, bytes] = {}

    @property
    def reusable(self) -> bool:
        """Whether the last answer was read to its end and the connection stays open."""
        return self._complete and not self._chunks and self._keep_alive and self._lost is None

    async def post(self, request: bytes) -> None:
        """Send a whole request; return when status and headers are there."""
        self._reset()
        self._active = True
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(self._silence_timeout_s, self._check_silence)
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

    def _check_silence(self) -> None:
        quiet_s = self._loop.time() - self._heard
        if quiet_s >= self._silence_timeout_s and not self._paused:
            self._fail(ConnectionCut(f"silent for {quiet_s:.0f} s"))
        else:
            left_s = max(self._silence_timeout_s - quiet_s, 1.0)
            self._timer = self._loop.call_later(left_s, self._check_silence)

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

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
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
