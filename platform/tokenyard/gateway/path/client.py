"""The client's end of one exchange, over bare ASGI: its body, its leaving, its pace, and what it is sent."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from starlette.types import Message, Receive, Scope, Send

from tokenyard.core.errors import PayloadTooLarge
from tokenyard.core.ids import OrganizationId
from tokenyard.web.client_address import address_of, network_of
from tokenyard.web.edge.leaving import tell_of_leaving

_DIGITS = 20  # more of them, which are costly to read, make no number that could be right

Headers = list[tuple[bytes, bytes]]


class ClientLeft(Exception):
    """The client closed the connection, or the server did because it took nothing for too long."""


class ClientConnection:
    """One request's client. Inside `with client.watched():` its leaving raises `ClientLeft`.

    `known_as` is its network, or its organization once that is known.

    How long it may take to send its body, and to take what it is sent, is bounded by the server (`HttpBounds`).
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self.send = send
        self._may_leave = False
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # the first of a name counts
        self.address = address_of(scope)
        self.known_as = network_of(self.address)
        self.identified = False
        self.started = False
        self.finished = False
        self.status = 0

    def identify(self, organization: OrganizationId) -> None:
        """Note whose key it has."""
        self.known_as, self.identified = organization, True

    def header(self, name: bytes) -> str | None:
        """Return a request header; `name` is lower case."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def body(self, limit: int, came: Callable[[int], None]) -> bytes:
        """Return the request body. `came` is told the bytes of each part of it, and may raise.

        Raises:
            PayloadTooLarge: it is over `limit` bytes.
            ClientLeft: it was cut.
        """
        declared = self.header(b"content-length")
        if declared is not None and (not declared.isdecimal() or len(declared) > _DIGITS or int(declared) > limit):
            raise _too_large(limit)
        body = await self._read(limit, came)
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
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        self.finished = True
        await self.send({"type": "http.response.body", "body": data, "more_body": False})

    @contextmanager
    def diverted(self, send: Send) -> Iterator[None]:
        """Give what is sent to `send` meanwhile; the client may leave, and nothing ends with it."""
        own, self.send, self._may_leave = self.send, send, True
        try:
            yield
        finally:
            self.send, self._may_leave = own, False

    def watched(self) -> AbstractContextManager[None]:
        """Return a context in which the client's leaving raises `ClientLeft`."""
        return nullcontext() if self._may_leave else _Watch(self, self._scope)


class _Watch:
    """Cancels the task inside it when the client leaves, and turns that cancellation into `ClientLeft`."""

    def __init__(self, client: ClientConnection, scope: Scope) -> None:
        self._client = client
        self._scope = scope
        self._gone = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] = task
        tell_of_leaving(self._scope, self._left)

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        tell_of_leaving(self._scope, None)
        if self._gone and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientLeft from error

    def _left(self) -> None:
        if not self._client.finished and not self._gone:
            self._gone = True
            self._task.cancel()


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is over the limit of {limit} bytes.")
