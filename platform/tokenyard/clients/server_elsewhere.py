"""HTTP to model servers that are not ours: TLS that is verified, proxies of the environment, pooled connections."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from tokenyard.core.replica import ConnectionStale, ReplicaLost, ReplicaUnreachable, ReplyLimits, ReplyOverdue

CONNECT_TIMEOUT_S = 5.0
"""For name, connection and TLS, and for a place among the connections where all are taken."""
KEEP_ALIVE_S = 15.0
MAX_CONNECTIONS = 1024
"""To one server, so that one which hangs takes none from another."""
READ_BUFFER_BYTES = 64 * 1024
_UNREACHABLE = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)


@dataclass
class _Trace:
    """How far one request came."""

    heard: Callable[[], None]
    reused: bool = False


class ElsewhereReply:
    """One answer. Reading raises `ReplicaLost` where it was cut, and `ReplyOverdue` where it was over its limits."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.length = response.content_length

    @property
    def retry_after_s(self) -> float | None:
        text = self._response.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.replace(".", "", 1).isdecimal() else None

    async def chunk(self) -> bytes:
        """Return the next bytes, or b"" at the end."""
        try:
            return await self._response.content.readany()
        except TimeoutError as error:
            raise ReplyOverdue(type(error).__name__) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ReplicaLost(type(error).__name__) from error

    async def beginning(self, size: int) -> bytes:
        """Return the body, or of one over `size` bytes somewhat more than those, which are its first."""
        parts, held = [], 0
        while held <= size and (part := await self.chunk()):
            parts.append(part)
            held += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Cut the connection, and so abort the request, where not everything was read."""
        self._response.close()


class ElsewhereClient:
    """Used as `async with`. Without `tls` a server is known by the certificates that this machine trusts."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls: ssl.SSLContext | bool = tls or True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_reused)
        trace.on_request_headers_sent.append(_heard)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._tls, limit=0, limit_per_host=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S
            ),
            # What is compressed may be without end once it is not.
            headers={"accept-encoding": "identity", "user-agent": "Tokenyard", "content-type": "application/json"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_BUFFER_BYTES,
            trace_configs=[trace],
        )
        return self

    async def __aexit__(self, *_raised: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], limits: ReplyLimits, heard: Callable[[], None]
    ) -> ElsewhereReply:
        """Send a JSON body; return the reply once its status is known. `heard` is called when the request went out.

        Raises:
            ReplicaLost: there is no connection, or it was cut. After `ConnectionStale` another try is on a new one.
            ReplyOverdue: nothing came within `limits`.
        """
        assert self._session is not None, "use `async with`"
        left_s = limits.deadline - asyncio.get_running_loop().time()
        trace = _Trace(heard)
        try:
            response = await self._session.post(
                URL(url, encoded=True),
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(
                    total=max(left_s, 0.001), connect=CONNECT_TIMEOUT_S, sock_read=limits.silence_s
                ),
                proxy=_proxy(url),
                allow_redirects=False,
                trace_request_ctx=trace,
            )
        except _UNREACHABLE as error:
            raise ReplicaUnreachable(str(error)) from error
        except TimeoutError as error:
            raise ReplyOverdue(type(error).__name__) from error
        except (aiohttp.ClientError, OSError) as error:
            if trace.reused and isinstance(error, aiohttp.ServerDisconnectedError | OSError):
                raise ConnectionStale(type(error).__name__) from error
            raise ReplicaLost(type(error).__name__) from error
        return ElsewhereReply(response)


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


async def _reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _details: object) -> None:
    context.trace_request_ctx.reused = True


async def _heard(_session: aiohttp.ClientSession, context: SimpleNamespace, _details: object) -> None:
    context.trace_request_ctx.heard()
