"""The client's end of one exchange, over bare ASGI: its body, its leaving, its pace, and what it is sent."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext

from starlette.types import Message, Receive, Scope, Send

from tokenyard.core.errors import InvalidRequest, PayloadTooLarge
from tokenyard.web.client_address import address_of

UPLOAD_TIMEOUT_S = 60.0
STALL_LIMIT_S = 30.0
_DIGITS = 20  # more of them, which are costly to read, make no number that could be right

Headers = list[tuple[bytes, bytes]]


class ClientLeft(Exception):
    """The client closed the connection, or took nothing for `STALL_LIMIT_S`."""


class ClientConnection:
    """One request's client. Inside `async with client.watched():` its leaving raises `ClientLeft`."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        stall_limit_s: float = STALL_LIMIT_S,
        upload_timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> None:
        self._receive = receive
        self.send = send
        self._may_leave = False
        self.stall_limit_s = stall_limit_s
        self._upload_timeout_s = upload_timeout_s
        self._sending_since: float | None = None
        self._headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        self.address = address_of(scope)
        self.started = False
        self.finished = False
        self.status = 0

    def header(self, name: bytes) -> str | None:
        """Return a request header; `name` is lower case."""
        for key, value in self._headers:
            if key == name:
                return value.decode("latin-1")
        return None

    async def body(self, limit: int, came: Callable[[int], None]) -> bytes:
        """Return the request body. `came` is told the bytes of each part of it, and may raise.

        Raises:
            PayloadTooLarge: it is over `limit` bytes.
            InvalidRequest: it does not arrive within `upload_timeout_s`.
            ClientLeft: it was cut.
        """
        declared = self.header(b"content-length")
        if declared is not None and (not declared.isdecimal() or len(declared) > _DIGITS or int(declared) > limit):
            raise _too_large(limit)
        try:
            async with asyncio.timeout(self._upload_timeout_s):
                body = await self._read(limit, came)
        except TimeoutError:
            raise InvalidRequest("The request body did not arrive in time.") from None
        if len(body) > limit:
            raise _too_large(limit)
        return body

    async def _read(self, limit: int, came: Callable[[int], None]) -> bytes:
        """Return the body, or somewhat more than `limit` bytes of it."""
        message = await self._next()
        body: bytes = message.get("body", b"")
        came(len(body))
        if not message.get("more_body", False):
            return body
        parts, size, more = [body], len(body), True
        while more and size <= limit:
            message = await self._next()
            parts.append(message.get("body", b""))
            came(len(parts[-1]))
            size += len(parts[-1])
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        return message

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send some of the body; waits while the client's buffer is full."""
        self._sending_since = asyncio.get_running_loop().time()
        await self.send({"type": "http.response.body", "body": data, "more_body": True})
        self._sending_since = None

    async def finish(self, data: bytes = b"") -> None:
        self.finished = True
        self._sending_since = asyncio.get_running_loop().time()
        await self.send({"type": "http.response.body", "body": data, "more_body": False})
        self._sending_since = None

    @contextmanager
    def diverted(self, send: Send) -> Iterator[None]:
        """Give what is sent to `send` meanwhile; the client may leave, and nothing ends with it."""
        own, self.send, self._may_leave = self.send, send, True
        try:
            yield
        finally:
            self.send, self._may_leave = own, False

    def watched(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which the client's leaving, or not taking anything, raises `ClientLeft`."""
        return nullcontext() if self._may_leave else DisconnectWatch(self)

    async def left(self) -> None:
        """Wait until the client closes the connection."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def stalled(self, now: float) -> bool:
        """Tell whether one send has waited for the client longer than is allowed."""
        return self._sending_since is not None and now - self._sending_since > self.stall_limit_s


class DisconnectWatch:
    """Cancels the task inside it when the client leaves, and turns that cancellation into `ClientLeft`."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._gone = False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] = task
        self._watcher = loop.create_task(self._watch())
        self._timer = loop.call_later(self._client.stall_limit_s, self._check)

    async def __aexit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        self._watcher.cancel()
        self._timer.cancel()
        if self._gone and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientLeft from error

    async def _watch(self) -> None:
        await self._client.left()
        if not self._client.finished:  # the server also says "disconnect" once a response is complete
            self._cancel()

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        if self._client.stalled(loop.time()):
            self._cancel()
        else:
            self._timer = loop.call_later(self._client.stall_limit_s, self._check)

    def _cancel(self) -> None:
        if not self._gone:
            self._gone = True
            self._task.cancel()


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is over the limit of {limit} bytes.")
