"""The replicas' HTTP client against servers that behave and servers that do not, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tokenyard.clients.http1 import MAX_BUFFERED_BYTES
from tokenyard.clients.model_server import ModelServerClient
from tokenyard.core.replica import (
    ConnectionStale,
    ReplicaLoad,
    ReplicaLost,
    ReplicaUnreachable,
    ReplyLimits,
    ReplyOverdue,
)

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request by `talk`, and remembers the requests and how many connections there were."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.connections = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self._talk(reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def _serving(talk: Talk) -> AsyncIterator[tuple[Server, str]]:
    server = Server(talk)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield server, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/x"
    finally:
        listener.close()


def _says(*pieces: bytes, then_close: bool = False) -> Talk:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if then_close:
            writer.close()

    return talk


@pytest.fixture
async def client() -> AsyncIterator[ModelServerClient]:
    async with ModelServerClient("token") as client:
        yield client


def _limits(silence_s: float = 5.0, total_s: float = 5.0) -> ReplyLimits:
    return ReplyLimits(silence_s, asyncio.get_running_loop().time() + total_s)


async def test_the_request(client: ModelServerClient) -> None:
    async with _serving(_says(WHOLE)) as (server, url):
        reply = await client.post(url, b"{}", {"x-own": "1"}, _limits())
        assert (reply.status, await reply.beginning(100)) == (200, b"hello")
        reply.close()
    (request,) = server.requests
    assert request.startswith(b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nauthorization: Bearer token\r\n" in request
    assert b"\r\nx-own: 1\r\n" in request
    assert request.endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(
    ("header", "load"),
    [
        (b"X-Tokenyard-Load: 3 32 512\r\n", ReplicaLoad(3, 32, 512)),
        (b"x-tokenyard-load: full\r\n", None),
        (b"x-tokenyard-load: 3 32\r\n", None),
        (b"", None),
    ],
)
async def test_what_a_replica_says_of_its_load(
    client: ModelServerClient, header: bytes, load: ReplicaLoad | None
) -> None:
    answer = WHOLE.replace(b"\r\n", b"\r\n" + header, 1)
    async with _serving(_says(answer)) as (_, url):
        reply = await client.post(url, b"{}", {}, _limits())
        assert reply.load == load
        reply.close()


async def test_a_header_cannot_smuggle(client: ModelServerClient) -> None:
    with pytest.raises(ValueError, match="line break"):
        async with _serving(_says(WHOLE)) as (_, url):
            await client.post(url, b"{}", {"x-own": "1\r\nx-other: 2"}, _limits())


async def test_a_body_in_any_pieces(client: ModelServerClient) -> None:
    answer = CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    async with _serving(_says(*(answer[at : at + 1] for at in range(len(answer))))) as (_, url):
        reply = await client.post(url, b"{}", {}, _limits())
        assert await reply.beginning(100) == b"hello world"
        assert await reply.chunk() == b""


async def test_connections_are_used_again(client: ModelServerClient) -> None:
    async with _serving(_says(WHOLE)) as (server, url):
        for _ in range(3):
            reply = await client.post(url, b"{}", {}, _limits())
            await reply.beginning(100)
            reply.close()
    assert len(server.requests) == 3
    assert server.connections == 1


async def test_not_after_connection_close(client: ModelServerClient) -> None:
    answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
    async with _serving(_says(answer)) as (server, url):
        for _ in range(2):
            reply = await client.post(url, b"{}", {}, _limits())
            await reply.beginning(100)
            reply.close()
    assert server.connections == 2


async def test_not_when_the_server_closed_it_meanwhile(client: ModelServerClient) -> None:
    async with _serving(_says(WHOLE, then_close=True)) as (server, url):
        for _ in range(2):
            reply = await client.post(url, b"{}", {}, _limits())
            await reply.beginning(100)
            reply.close()
            await asyncio.sleep(0.05)
    assert server.connections == 2


async def test_closing_early_cuts_the_connection(client: ModelServerClient) -> None:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await writer.drain()
        assert await reader.read() == b""
        gone.set()

    async with _serving(talk) as (_, url):
        reply = await client.post(url, b"{}", {}, _limits())
        assert await reply.chunk() == b"hello"
        reply.close()
        async with asyncio.timeout(2):
            await gone.wait()


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200", b"SSH-2.0-what\r\n\r\n"],
    ids=["nothing", "half a status", "not http"],
)
async def test_lost_before_the_status(client: ModelServerClient, answer: bytes) -> None:
    async with _serving(_says(answer, then_close=True)) as (_, url):
        with pytest.raises(ReplicaLost):
            await client.post(url, b"{}", {}, _limits())


@pytest.mark.parametrize(
    "answer",
    [CHUNKED + b"5\r\nhel", WHOLE[:-1], CHUNKED + b"zz\r\n"],
    ids=["chunked", "length", "bad chunk"],
)
async def test_lost_before_the_end(client: ModelServerClient, answer: bytes) -> None:
    async with _serving(_says(answer, then_close=True)) as (_, url):
        with pytest.raises(ReplicaLost):
            await (await client.post(url, b"{}", {}, _limits())).beginning(100)


async def test_an_extra_answer_goes_to_nobody(client: ModelServerClient) -> None:
    async with _serving(_says(WHOLE + WHOLE.replace(b"hello", b"other"))) as (server, url):
        for _ in range(2):
            reply = await client.post(url, b"{}", {}, _limits())
            assert await reply.beginning(100) == b"hello"
            reply.close()
    assert server.connections == 2


async def test_a_reply_that_is_silent_or_too_slow(client: ModelServerClient) -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.02)

    async with _serving(_says()) as (_, url):
        with pytest.raises(ReplyOverdue, match="silent"):
            await client.post(url, b"{}", {}, _limits(silence_s=0.1))
        with pytest.raises(ReplyOverdue, match="in time"):
            await client.post(url, b"{}", {}, _limits(total_s=0.1))
    async with _serving(drip) as (_, url):
        reply = await client.post(url, b"{}", {}, _limits(silence_s=1.0, total_s=0.3))
        with pytest.raises(ReplyOverdue, match="in time"):
            await reply.beginning(10**6)
        reply.close()


async def test_a_kept_connection_that_is_cut_unanswered_is_stale_and_the_next_one_is_new(
    client: ModelServerClient,
) -> None:
    answered = 0

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        answered += 1
        if answered == 3:
            raise ConnectionAbortedError
        writer.write(WHOLE)

    async with _serving(talk) as (server, url):
        replies = [await client.post(url, b"{}", {}, _limits()) for _ in range(2)]
        for reply in replies:
            assert await reply.beginning(100) == b"hello"
            reply.close()
        with pytest.raises(ConnectionStale):
            await client.post(url, b"{}", {}, _limits())
        assert server.connections == 2
        reply = await client.post(url, b"{}", {}, _limits())
        assert await reply.beginning(100) == b"hello"
        reply.close()
        assert server.connections == 3


async def test_a_kept_connection_that_is_cut_in_its_answer_is_lost(client: ModelServerClient) -> None:
    answers = [WHOLE, b"HTTP/1.1 2"]

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))
        await writer.drain()
        if not answers:
            raise ConnectionAbortedError

    async with _serving(talk) as (_, url):
        reply = await client.post(url, b"{}", {}, _limits())
        await reply.beginning(100)
        reply.close()
        with pytest.raises(ReplicaLost) as lost:
            await client.post(url, b"{}", {}, _limits())
        assert not isinstance(lost.value, ConnectionStale)


async def test_the_kernel_tells_of_a_machine_that_is_gone(client: ModelServerClient) -> None:
    async with _serving(_says(WHOLE)) as (_, url):
        reply = await client.post(url, b"{}", {}, _limits())
        connection = reply._connection._transport.get_extra_info("socket")
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000
        reply.close()


async def test_refused(client: ModelServerClient) -> None:
    with pytest.raises(ReplicaUnreachable):
        await client.post("http://127.0.0.1:9/v1/x", b"{}", {}, _limits())


async def test_of_a_long_body_the_beginning_is_taken_and_the_rest_is_still_there(client: ModelServerClient) -> None:
    async with _serving(_says(CHUNKED + b"3\r\nhel\r\n", b"2\r\nlo\r\n0\r\n\r\n")) as (_, url):
        reply = await client.post(url, b"{}", {}, _limits())
        first = await reply.beginning(2)
        assert first in {b"hel", b"hello"}
        assert first + await reply.chunk() == b"hello"
        assert reply.length is None
    async with _serving(_says(WHOLE)) as (_, url):
        assert (await client.post(url, b"{}", {}, _limits())).length == 5


async def test_what_is_not_read_stays_with_the_server(client: ModelServerClient) -> None:
    sent = 0

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        for _ in range(2000):
            writer.write(piece)
            await writer.drain()
            sent += 0x8000

    async with _serving(flood) as (_, url):
        reply = await client.post(url, b"{}", {}, _limits())
        await asyncio.sleep(0.2)
        assert sent < 16 * 1024 * 1024
        assert len(await reply.chunk()) <= 4 * MAX_BUFFERED_BYTES
        reply.close()


async def test_retry_after(client: ModelServerClient) -> None:
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n"
    async with _serving(_says(answer)) as (_, url):
        reply = await client.post(url, b"{}", {}, _limits())
        assert (reply.status, reply.retry_after_s, await reply.beginning(100)) == (503, 7.0, b"")
