"""HTTP to the replicas' own ports: one pooled session, bytes in and bytes out."""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from tokenyard.core.replica import ReplicaLost

CONNECT_TIMEOUT_S = 2.0
SILENCE_TIMEOUT_S = 600.0
# Below the 5 s after which uvicorn closes an idle connection, so that we never write into a closing one.
KEEP_ALIVE_S = 3.0
BUFFER_BYTES = 64 * 1024

_LOSSES = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


@lru_cache(maxsize=1024)
def _url(text: str) -> URL:
    return URL(text)


class ModelServerReply:
    """One answer; what is not yet read waits in at most `BUFFER_BYTES` x 2, then in the replica."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self.status = response.status

    @property
    def retry_after_s(self) -> float | None:
        text = self._response.headers.get("retry-after", "")
        return float(text) if text.replace(".", "", 1).isdecimal() else None

    async def chunk(self) -> bytes:
        """Return the next bytes, or b"" at the end.

        Raises:
            ReplicaLost: cut before the end.
        """
        try:
            return await self._content.readany()
        except _LOSSES as error:
            raise ReplicaLost(type(error).__name__) from error

    async def body(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            ReplicaLost: cut before the end, or longer than `limit` bytes.
        """
        first = await self.chunk()
        if self._content.at_eof() and len(first) <= limit:
            return first
        parts, size = [first], len(first)
        while part := await self.chunk():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise ReplicaLost(f"the reply is longer than {limit} bytes")
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back when everything was read; cut it, and so abort the request, when not."""
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()


class ModelServerClient:
    """Used as `async with`; `bearer` is the replicas' token."""

    def __init__(self, bearer: str, *, silence_timeout_s: float = SILENCE_TIMEOUT_S) -> None:
        self._bearer = f"Bearer {bearer}"
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "ModelServerClient":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=BUFFER_BYTES,
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept-encoding", "accept"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> ModelServerReply:
        """Send a JSON body; return the reply once its status is known.

        Raises:
            ReplicaLost: no connection, or cut before the status.
        """
        assert self._session is not None, "use `async with`"
        sent = CIMultiDict(headers)
        sent["authorization"] = self._bearer
        sent["content-type"] = "application/json"
        try:
            response = await self._session.post(_url(url), data=body, headers=sent, allow_redirects=False)
        except _LOSSES as error:
            raise ReplicaLost(type(error).__name__) from error
        return ModelServerReply(response)
