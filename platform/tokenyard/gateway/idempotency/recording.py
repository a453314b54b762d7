"""Records what a client is sent, numbers the events of a stream, and sends on for as long as the client is there."""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.types import Message, Send

MAX_REPLY_BYTES = 1024 * 1024

_KEPT_HEADERS = frozenset({b"content-type", b"cache-control", b"x-accel-buffering"})
_END = b"\n\n"


class NoSuchEvent(ValueError):
    """A stream has fewer events than that."""


class RecordedReply(msgspec.Struct, frozen=True):
    """A reply as its client was sent it; `request` is the id of the request that it answered."""

    request: str
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def packed(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def unpacked(cls, data: bytes) -> "RecordedReply":
        return msgspec.msgpack.decode(data, type=cls)

    def after(self, event: int) -> bytes:
        """Return the body from behind the event with this number, 0 for all of it.

        Raises:
            NoSuchEvent: there are fewer.
        """
        parts = self.body.split(_END, event)
        if len(parts) <= event:
            raise NoSuchEvent(f"event {event} of {len(parts) - 1}")
        return parts[-1]


class ReplyRecorder:
    """Takes what is sent to one client. `may_keep` is asked before more bytes are kept; `at_end` is done before the
    client is sent the end.

    Where the client leaves, what is sent is recorded on.
    """

    def __init__(
        self,
        send: Send,
        *,
        may_keep: Callable[[int], bool],
        at_end: Callable[[], Awaitable[None]],
    ) -> None:
        self._send = send
        self._may_keep = may_keep
        self._at_end = at_end
        self._numbers = False
        self._events = 0
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._bytes = 0
        self._keeps = True
        self._finished = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        else:
            body = self._numbered(message["body"]) if self._numbers else message["body"]
            self._record(body)
            message = {**message, "body": body}
            if not message["more_body"]:
                self._finished = True
                await self._at_end()
        await self._send(message)

    def reply(self, request: str) -> RecordedReply | None:
        """Return the whole reply; None where it has no end, or is too long to be kept."""
        if not self._keeps or not self._finished:
            return None
        return RecordedReply(request, self._status, self._headers, b"".join(self._parts))

    def _begin(self, message: Message) -> None:
        self._status = message["status"]
        self._headers = [(name, value) for name, value in message["headers"] if name in _KEPT_HEADERS]
        self._numbers = any(value.startswith(b"text/event-stream") for _, value in self._headers)

    def _numbered(self, data: bytes) -> bytes:
        """Return whole events with their numbers."""
        *events, rest = data.split(_END)
        out = []
        for event in events:
            self._events += 1
            out.append(b"id: %d\n%b\n\n" % (self._events, event))
        return b"".join(out) + rest

    def _record(self, body: bytes) -> None:
        if not self._keeps:
            return
        self._bytes += len(body)
        if self._bytes > MAX_REPLY_BYTES or not self._may_keep(len(body)):
            self._keeps = False
            self._parts.clear()
        else:
            self._parts.append(body)
