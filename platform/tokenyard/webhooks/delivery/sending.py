"""Sends one event to one endpoint: a bounded time, a bounded answer, no redirects, and only to allowed addresses."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from tokenyard.core.errors import InvalidRequest
from tokenyard.webhooks.targets import WebhookTargets

LIMIT_S = 15.0
ANSWER_BYTES = 1024
ANSWER_S = 2.0  # what an answer begins with may take longer; its status has been told by then
AT_ONCE = 64
USER_AGENT = "Tokenyard-Webhooks/1"


class EndpointAnswer(msgspec.Struct, frozen=True):
    """What came of an attempt: `status` with the beginning of its text, or an `error` where nothing answered."""

    duration_ms: int
    status: int | None = None
    error: str | None = None
    text: str = ""

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class AddressRefused(OSError):
    """Webhooks may not go to the address that a name stands for."""


class WebhookSender:
    """Used as `async with`; `tls` is for tests, whose authority nobody else trusts."""

    def __init__(self, targets: WebhookTargets, *, tls: ssl.SSLContext | None = None, limit_s: float = LIMIT_S) -> None:
        self._targets = targets
        self._tls = tls
        self._limit_s = limit_s
        self._resolver = _OwnThreads()
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            socket_factory=self._socket,
            force_close=True,
            limit=AT_ONCE,
            ssl=True if self._tls is None else self._tls,
        )
        self._http = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._http is not None:
            await self._http.close()
        await self._resolver.close()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> EndpointAnswer:
        """Send once. Whatever happens is an answer: only being cancelled raises."""
        began = time.monotonic()
        status, text, error = None, b"", None
        try:
            async with asyncio.timeout(self._limit_s):
                async with self._posted(url, headers, body) as reply:
                    status = reply.status
                    text = await _beginning(reply)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, InvalidRequest) as failure:
            error = None if status is not None else _in_words(failure)
        duration_ms = round((time.monotonic() - began) * 1000)
        return EndpointAnswer(duration_ms, status, error, text.decode("utf-8", "replace").replace("\0", ""))

    def _posted(self, url: str, headers: Mapping[str, str], body: bytes) -> Any:
        assert self._http is not None, "used outside its block"
        self._targets.check_url(url)  # the operator may allow less than when it was stated
        own = {"user-agent": USER_AGENT, "accept-encoding": "identity", **headers}
        return self._http.post(url, data=body, headers=own, allow_redirects=False)

    def _socket(self, address: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        # Every connection comes by here with the very address that it goes to: no name is looked up after this.
        family, kind, protocol, _, (host, *_) = address
        if not self._targets.allows(host):
            raise AddressRefused("not allowed")  # of several addresses, one error is told where all say the same
        return socket.socket(family, kind, protocol)


class _OwnThreads(AbstractResolver):
    """Looks names up in threads of its own: somebody's slow name server must not hold up the process's others."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _beginning(reply: aiohttp.ClientResponse) -> bytes:
    text = b""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(ANSWER_S):
            while len(text) < ANSWER_BYTES and (more := await reply.content.read(ANSWER_BYTES - len(text))):
                text += more
    return text


def _in_words(failure: Exception) -> str:
    """Say what failed, without what our own network looks like."""
    if isinstance(failure, InvalidRequest):
        return failure.message
    for kind, words in _WORDS:
        if isinstance(failure, kind) or isinstance(getattr(failure, "os_error", None), kind):
            return words
    return "The request failed."


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "There was no answer in time."),
    (AddressRefused, "Webhooks are not sent to the address of this host."),
    (aiohttp.ClientConnectorDNSError, "The host was not found."),
    (aiohttp.ClientSSLError, "There is no trusted TLS connection with the host."),
    (aiohttp.ClientConnectorError, "The host cannot be reached."),
    (aiohttp.InvalidURL, "The URL cannot be used."),
    (aiohttp.ServerDisconnectedError, "The host closed the connection without an answer."),
    (aiohttp.ClientError, "The answer was not understood, or cut short."),
)
