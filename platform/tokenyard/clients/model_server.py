"""HTTP to the replicas' own ports: pooled connections, bytes in and bytes out."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from tokenyard.clients.http1 import AnswerOverdue, ConnectionCut, Http1Connection
from tokenyard.core.replica import (
    LOAD_HEADER,
    ConnectionStale,
    ReplicaLoad,
    ReplicaLost,
    ReplicaUnreachable,
    ReplyLimits,
    ReplyOverdue,
)

CONNECT_TIMEOUT_S = 2.0
# Below the 5 s after which uvicorn closes an idle connection, so that we never write into a closing one.
KEEP_ALIVE_S = 3.0
MAX_IDLE_PER_REPLICA = 256
_LOAD = LOAD_HEADER.encode()


class _Address(NamedTuple):
    host: str
    port: int
    path: str


@lru_cache(maxsize=1024)
def _address(url: str) -> _Address:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"not an http URL: {url!r}")
    return _Address(parts.hostname, parts.port or 80, parts.path or "/")


class _Idle(NamedTuple):
    connection: Http1Connection
    since: float


class ModelServerReply:
    """One answer. What is not yet read waits in a bounded buffer, then in the replica.

    Reading raises `ReplicaLost` where it was cut, and `ReplyOverdue` where it was over its limits.
    """

    def __init__(self, client: "ModelServerClient", address: _Address, connection: Http1Connection) -> None:
        self._client = client
        self._address = address
        self._connection = connection
        self.status = connection.status

    @property
    def retry_after_s(self) -> float | None:
        text = self._connection.headers.get(b"retry-after", b"").decode("latin-1")
        return float(text) if text.isascii() and text.replace(".", "", 1).isdecimal() else None

    @property
    def length(self) -> int | None:
        """How many bytes the body will have, where the replica says it."""
        text = self._connection.headers.get(b"content-length", b"")
        return int(text) if text.isdigit() else None

    @property
    def load(self) -> ReplicaLoad | None:
        """What the replica says of itself, if it does."""
        text = self._connection.headers.get(_LOAD)
        return None if text is None else ReplicaLoad.read(text)

    async def chunk(self) -> bytes:
        """Return the next bytes, or b"" at the end."""
        try:
            return await self._connection.chunk()
        except ConnectionCut as error:
            raise ReplicaLost(str(error)) from error
        except AnswerOverdue as error:
            raise ReplyOverdue(str(error)) from error

    async def beginning(self, size: int) -> bytes:
        """Return the body, or of one over `size` bytes somewhat more than those, which are its first."""
        parts, held = [], 0
        while held <= size and not self._connection.ended and (part := await self.chunk()):
            parts.append(part)
            held += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give the connection back when everything was read; cut it, and so abort the request, when not."""
        self._client.give_back(self._address, self._connection)


class ModelServerClient:
    """Used as `async with`; `bearer` is the replicas' token."""

    def __init__(self, bearer: str) -> None:
        self._bearer = bearer
        self._idle: defaultdict[tuple[str, int], list[_Idle]] = defaultdict(list)
        self._closing: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> "ModelServerClient":
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._closing is not None:
            self._closing.cancel()
        for idle in self._idle.values():
            _close(idle)
        self._idle.clear()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], limits: ReplyLimits) -> ModelServerReply:
        """Send a JSON body; return the reply once its status is known.

        Raises:
            ReplicaLost: there is no connection, or it was cut. After `ConnectionStale` the next call makes a new one.
            ReplyOverdue: nothing came within `limits`.
        """
        address = _address(url)
        kept = self._taken(address)
        connection = kept or await self._connected(address)
        try:
            await connection.post(self._request(address, body, headers), limits.silence_s, limits.deadline)
        except AnswerOverdue as error:
            raise ReplyOverdue(str(error)) from error
        except ConnectionCut as error:
            if kept is None or connection.answering:
                raise ReplicaLost(str(error)) from error
            _close(self._idle.pop(address[:2], []))  # those are likely to be closed, too
            raise ConnectionStale(str(error)) from error
        except BaseException:
            connection.close()
            raise
        return ModelServerReply(self, address, connection)

    def _request(self, address: _Address, body: bytes, headers: Mapping[str, str]) -> bytes:
        own = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if own.count("\n") != len(headers):
            raise ValueError("a header holds a line break")
        head = (
            f"POST {address.path} HTTP/1.1\r\nhost: {address.host}:{address.port}\r\n"
            f"authorization: Bearer {self._bearer}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{own}\r\n"
        )
        return head.encode("ascii") + body

    async def _connected(self, address: _Address) -> Http1Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Http1Connection, address.host, address.port
                )
        except OSError as error:  # TimeoutError is one too
            raise ReplicaUnreachable(type(error).__name__) from error
        return connection

    def _taken(self, address: _Address) -> Http1Connection | None:
        idle, oldest = self._idle[address.host, address.port], time.monotonic() - KEEP_ALIVE_S
        while idle:
            connection, since = idle.pop()
            if connection.reusable and since > oldest:
                return connection
            connection.close()
        return None

    def give_back(self, address: _Address, connection: Http1Connection) -> None:
        """Keep a connection for the next request, or close it where that cannot be."""
        idle = self._idle[address.host, address.port]
        if not connection.reusable or len(idle) >= MAX_IDLE_PER_REPLICA:
            connection.close()
            return
        idle.append(_Idle(connection, time.monotonic()))
        if self._closing is None:
            self._closing = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._close_old)

    def _close_old(self) -> None:
        self._closing, oldest = None, time.monotonic() - KEEP_ALIVE_S
        for address, idle in list(self._idle.items()):
            _close([one for one in idle if one.since <= oldest])
            kept = [one for one in idle if one.since > oldest]
            if kept:
                self._idle[address] = kept
            else:
                del self._idle[address]
        if self._idle:
            self._closing = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._close_old)


def _close(idle: Iterable[_Idle]) -> None:
    for connection, _ in idle:
        connection.close()
