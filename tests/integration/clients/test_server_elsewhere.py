"""The client of servers elsewhere, over real sockets with and without TLS."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.fakes.server_elsewhere import KEY_THERE, ServerElsewhereFake, running_elsewhere
from support.servers.certificates import make_certificate
from tokenyard.clients import server_elsewhere
from tokenyard.clients.server_elsewhere import ElsewhereClient
from tokenyard.core.replica import ConnectionStale, ReplicaLost, ReplicaUnreachable, ReplyLimits, ReplyOverdue

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Talking:
    """Answers each request by the next of its answers; counts connections."""

    def __init__(self, *answers: bytes, then_close: bool = False) -> None:
        self._answers = list(answers)
        self._then_close = then_close
        self.connections = 0
        self.heads: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
                self.heads.append(head)
                writer.write(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
                await writer.drain()
                if self._then_close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def _serving(server: Talking) -> AsyncIterator[str]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/x"
    finally:
        listener.close()


@pytest.fixture
async def client() -> AsyncIterator[ElsewhereClient]:
    async with ElsewhereClient() as client:
        yield client


def _limits(silence_s: float = 5.0, total_s: float = 5.0) -> ReplyLimits:
    return ReplyLimits(silence_s, asyncio.get_running_loop().time() + total_s)


def _nothing() -> None:
    pass


async def _read(client: ElsewhereClient, url: str, limits: ReplyLimits) -> bytes:
    reply = await client.post(url, b"{}", {}, limits, _nothing)
    try:
        return await reply.beginning(100)
    finally:
        reply.close()


async def test_tls_is_verified(tmp_path: Path, client: ElsewhereClient) -> None:
    certificate, server = make_certificate(tmp_path), ServerElsewhereFake()
    body, headers = b'{"messages": []}', {"authorization": f"Bearer {KEY_THERE}"}
    async with running_elsewhere(server, certificate) as url:
        with pytest.raises(ReplicaUnreachable):
            await client.post(f"{url}/chat/completions", body, headers, _limits(), _nothing)
        assert server.log == []
        async with ElsewhereClient(tls=certificate.trusted()) as trusting:
            heard: list[bool] = []
            reply = await trusting.post(f"{url}/chat/completions", body, headers, _limits(), lambda: heard.append(True))
            assert (reply.status, heard) == (200, [True])
            assert b"word8" in await reply.beginning(100_000)
            reply.close()
            other = make_certificate(tmp_path / "..", "127.0.0.2")
    async with running_elsewhere(server, other) as url, ElsewhereClient(tls=other.trusted()) as trusting:
        with pytest.raises(ReplicaUnreachable):  # a certificate of another address
            await trusting.post(f"{url}/chat/completions", body, headers, _limits(), _nothing)


async def test_connections_are_used_again_and_carry_nothing_of_ours(client: ElsewhereClient) -> None:
    server = Talking(b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 5\r\n\r\nhello")
    async with _serving(server) as url:
        for _ in range(3):
            reply = await client.post(url, b"{}", {"authorization": "Bearer k"}, _limits(), _nothing)
            assert await reply.beginning(100) == b"hello"
            reply.close()
    assert server.connections == 1
    names = {line.partition(":")[0] for line in server.heads[2].splitlines()[1:] if line}
    assert names == {
        "host",
        "authorization",
        "accept",
        "accept-encoding",
        "user-agent",
        "content-type",
        "content-length",
    }
    assert "identity" in server.heads[2]


async def test_one_that_was_closed_meanwhile_is_stale_and_one_that_cuts_at_once_is_lost(
    client: ElsewhereClient,
) -> None:
    async with _serving(Talking(WHOLE, b"")) as url:
        reply = await client.post(url, b"{}", {}, _limits(), _nothing)
        assert await reply.beginning(100) == b"hello"
        with pytest.raises(ReplyOverdue):
            await client.post(url, b"{}", {}, _limits(silence_s=0.1), _nothing)
    cutting = Talking(b"HTTP/1.1 2", then_close=True)
    async with _serving(cutting) as url:
        with pytest.raises(ReplicaLost) as lost:
            await client.post(url, b"{}", {}, _limits(), _nothing)
        assert not isinstance(lost.value, ConnectionStale)


async def test_a_kept_connection_that_is_cut_unanswered_is_stale(client: ElsewhereClient) -> None:
    answered = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while answered < 2:
            await reader.readuntil(b"{}")
            answered += 1
            if answered == 1:
                writer.write(WHOLE)
                await writer.drain()
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/x"
    async with listener:
        reply = await client.post(url, b"{}", {}, _limits(), _nothing)
        await reply.beginning(100)
        with pytest.raises(ConnectionStale):
            await client.post(url, b"{}", {}, _limits(), _nothing)


@pytest.mark.parametrize("answer", [CHUNKED + b"5\r\nhel", WHOLE[:-1], CHUNKED + b"zz\r\n"])
async def test_lost_before_the_end(client: ElsewhereClient, answer: bytes) -> None:
    async with _serving(Talking(answer, then_close=True)) as url:
        with pytest.raises(ReplicaLost):
            await _read(client, url, _limits())


async def test_silence_and_time_have_limits(client: ElsewhereClient) -> None:
    async with _serving(Talking(CHUNKED + b"1\r\nx\r\n")) as url:
        for limits in (_limits(silence_s=0.1), _limits(total_s=0.1)):
            with pytest.raises(ReplyOverdue):
                await _read(client, url, limits)


async def test_nobody_there(client: ElsewhereClient, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bool] = []
    with pytest.raises(ReplicaUnreachable):
        await client.post("http://127.0.0.1:9/v1/x", b"{}", {}, _limits(), lambda: heard.append(True))
    with pytest.raises(ReplicaUnreachable):
        await client.post("http://nowhere.invalid/v1/x", b"{}", {}, _limits(), _nothing)
    assert heard == []


async def test_neither_redirects_nor_compression(client: ElsewhereClient) -> None:
    moved = b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:9/other\r\ncontent-length: 0\r\n\r\n"
    async with _serving(Talking(moved)) as url:
        assert (await client.post(url, b"{}", {}, _limits(), _nothing)).status == 307
    bomb = gzip.compress(b"0" * 10_000_000)
    packed = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb) + bomb
    async with _serving(Talking(packed)) as url:
        reply = await client.post(url, b"{}", {}, _limits(), _nothing)
        assert await reply.beginning(10**9) == bomb


async def test_a_proxy_of_the_environment_is_used(client: ElsewhereClient, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Talking(WHOLE)
    async with _serving(proxy) as url:
        monkeypatch.setenv("http_proxy", url.removesuffix("/v1/x"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        reply = await client.post("http://models.invalid/v1/x", b"{}", {}, _limits(), _nothing)
        assert await reply.beginning(100) == b"hello"
        assert proxy.heads[0].startswith("post http://models.invalid/v1/x")
        assert server_elsewhere._proxy(url) is None


async def test_retry_after(client: ElsewhereClient) -> None:
    for told, read in ((b"7", 7.0), (b"1.5", 1.5), (b"Wed, 21 Oct 2026 07:28:00 GMT", None), (b"-5", None)):
        async with _serving(Talking(b"HTTP/1.1 429 x\r\nretry-after: %b\r\ncontent-length: 0\r\n\r\n" % told)) as url:
            assert (await client.post(url, b"{}", {}, _limits(), _nothing)).retry_after_s == read
