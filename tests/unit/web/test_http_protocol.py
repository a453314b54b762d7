"""The server's end of one connection, where a test of the whole process would take long or could not look inside."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import uvloop
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from support.gateway_stack import until
from support.raw_http import raw_connection
from support.servers.asgi import running
from tokenyard.web.client_address import TrustedProxies
from tokenyard.web.edge.bounds import EACH, HttpBounds
from tokenyard.web.edge.http_protocol import BoundedConfig

GET = b"GET / HTTP/1.1\r\nhost: a\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
PIECE = b"x" * 65_536


class App:
    """Sends pieces until the client leaves; reads a body as slowly as it is told."""

    def __init__(self, *, pieces: int = 0, reads_after_s: float = 0.0) -> None:
        self.pieces = pieces
        self.reads_after_s = reads_after_s
        self.clients: list[str] = []
        self.body = b""
        self.ended = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.clients.append(scope["client"][0])
        more = True
        while more:
            await asyncio.sleep(self.reads_after_s)
            message = await receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(self.pieces):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.ended += 1


@asynccontextmanager
async def served(app: ASGIApp, bounds: HttpBounds) -> AsyncIterator[tuple[str, BoundedConfig]]:
    config = BoundedConfig(app, bounds, CollectorRegistry(), host="127.0.0.1", port=0, shutdown_s=1)
    config.lifespan = "off"
    async with running(app, config=config) as url:
        yield url, config


async def test_who_takes_nothing_of_an_answer_is_cut() -> None:
    app = App(pieces=1000)
    async with served(app, HttpBounds(stalled_s=1.0)) as (url, _), raw_connection(url) as connection:
        await connection.send(GET + b"\r\n")
        await until(lambda: app.ended)
        assert len(await connection.rest()) < 1000 * len(PIECE)


async def test_a_body_that_the_app_is_slow_to_take_is_not_the_client_s_fault() -> None:
    app = App(reads_after_s=0.2)
    size = 20 * len(PIECE)
    bounds = HttpBounds(upload_s=0.5, upload_bytes_per_s=10**9)
    async with served(app, bounds) as (url, _), raw_connection(url) as connection:
        await connection.send(POST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") % size + b"y" * size)
        assert b" 200 " in await connection.rest()
    assert len(app.body) == size


async def test_nothing_is_kept_of_connections_that_ended() -> None:
    bounds = HttpBounds(header_s=0.1, proxies=TrustedProxies(["127.0.0.9"]))
    async with served(App(), bounds) as (url, config):
        for address in ("127.0.0.1", "127.0.0.9"):
            for request in (GET + b"x-forwarded-for: 192.0.2.1\r\n\r\n", GET, b"", POST % 5, b"nonsense\r\n\r\n"):
                async with raw_connection(url, address) as connection:
                    await connection.send(request)
                    await asyncio.sleep(0.01)
        await until(lambda: not config.clients)
        await until(lambda: config.clocks.idle and not config.idle)


@pytest.mark.parametrize(("address", "client"), [("127.0.0.9", "192.0.2.1"), ("127.0.0.8", "127.0.0.8")])
async def test_the_app_is_told_who_is_behind_a_trusted_proxy(address: str, client: str) -> None:
    app = App()
    async with served(app, HttpBounds(proxies=TrustedProxies(["127.0.0.9"]))) as (url, _):
        async with raw_connection(url, address) as connection:
            await connection.send(GET + b"connection: close\r\nx-forwarded-for: 10.0.0.1, 192.0.2.1\r\n\r\n")
            assert b" 200 " in await connection.rest()
    assert app.clients == [client]


async def test_a_bad_request_behind_a_good_one_is_not_answered_in_its_place() -> None:
    app = App(reads_after_s=0.3)
    async with served(app, HttpBounds()) as (url, _), raw_connection(url) as connection:
        await connection.send(GET + b"\r\n" + b"nonsense\r\n\r\n")
        assert b" 400 " not in await connection.rest()


async def test_who_comes_when_all_are_being_served_is_told_to_come_back() -> None:
    app = App(reads_after_s=0.5)
    async with served(app, HttpBounds(connections=2)) as (url, _), AsyncExitStack() as stack:
        for _ in range(2):
            connection = await stack.enter_async_context(raw_connection(url))
            await connection.send(GET + b"\r\n")
        await until(lambda: len(app.clients) == 2)
        async with raw_connection(url) as late:
            status, headers, body = await late.answer()
        assert (status, headers["retry-after"], body["error"]["code"]) == (503, "1", "server_is_overloaded")
        assert b" 200 " in await connection.until_answered()


@pytest.mark.parametrize(
    ("bounds", "newcomer"),
    [(HttpBounds(connections=2), "127.0.0.9"), (HttpBounds(connections_of_one=2), "127.0.0.8")],
    ids=["of all", "of one network"],
)
async def test_who_is_idle_for_longest_makes_room(bounds: HttpBounds, newcomer: str) -> None:
    async with served(App(), bounds) as (url, config), AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(raw_connection(url, "127.0.0.8")) for _ in range(2)]
        for connection in (first, second, first):
            await connection.send(GET + b"\r\n")
            assert b" 200 " in await connection.until_answered()
        assert len(config.idle) == 2
        late = await stack.enter_async_context(raw_connection(url, newcomer))
        assert await second.rest() == b""
        for connection in (first, late):
            await connection.send(GET + b"\r\n")
            assert b" 200 " in await connection.until_answered()


async def test_who_has_been_served_stays_while_others_say_nothing() -> None:
    async with served(App(), HttpBounds(connections=2)) as (url, _), AsyncExitStack() as stack:
        connection = await stack.enter_async_context(raw_connection(url))
        await connection.send(GET + b"\r\n")
        assert b" 200 " in await connection.until_answered()
        silent = await stack.enter_async_context(raw_connection(url))
        await asyncio.sleep(0.1)
        await stack.enter_async_context(raw_connection(url))
        assert await silent.rest() == b""
        await connection.send(GET + b"\r\n")
        assert b" 200 " in await connection.until_answered()


async def test_an_idle_connection_ends_when_its_time_is_up() -> None:
    async with served(App(), HttpBounds(idle_s=1)) as (url, config), raw_connection(url) as connection:
        await connection.send(GET + b"\r\n")
        assert b" 200 " in await connection.until_answered()
        assert await connection.rest() == b""
        await until(lambda: not config.idle)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_network_that_took_more_than_its_share_of_time_waits_with_its_next_connections(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    run(_waits_with_its_next_connections())


async def _waits_with_its_next_connections() -> None:
    app = App()
    async with served(app, HttpBounds(held=2)) as (url, config), AsyncExitStack() as stack:
        config.pace.took("127.0.0.8", EACH.burst_s + EACH.share * 1.0)
        held = [await stack.enter_async_context(raw_connection(url, "127.0.0.8")) for _ in range(2)]
        for connection in held:
            await connection.send(GET + b"\r\n")
        async with raw_connection(url, "127.0.0.9") as other:
            await other.send(GET + b"connection: close\r\n\r\n")
            assert b" 200 " in await other.rest()
        assert (app.clients, config.held) == (["127.0.0.9"], 2)
        async with raw_connection(url, "127.0.0.8") as one_more:
            assert await one_more.rest() == b"", "only so many are let wait"
        for connection in held:
            assert b" 200 " in await connection.until_answered()
        assert config.held == 0


def test_who_waits_and_has_sent_more_than_is_kept_is_ended_at_its_time() -> None:
    uvloop.run(_is_ended_at_its_time())


async def _is_ended_at_its_time() -> None:
    app = App()
    async with served(app, HttpBounds()) as (url, config), raw_connection(url, "127.0.0.8") as connection:
        await connection.send(GET + b"\r\n")
        assert b" 200 " in await connection.until_answered()
        config.pace.took("127.0.0.8", EACH.burst_s + EACH.share * 0.5)
        async with raw_connection(url, "127.0.0.8") as large:
            await large.send(POST % len(PIECE) + PIECE)
            await until(lambda: config.held == 1)
            assert await large.rest() == b""
    assert (len(app.clients), config.held) == (1, 0)


async def test_who_is_refused_again_and_again_is_let_wait() -> None:
    async with served(App(), HttpBounds()) as (url, config):
        before = config.pace.wait_s("127.0.0.8")
        for _ in range(200):
            async with raw_connection(url, "127.0.0.8") as connection:
                await connection.send(b"nonsense\r\n\r\n")
                if config.pace.wait_s("127.0.0.8"):
                    break
                assert b" 400 " in await connection.rest()
        assert (before, config.pace.wait_s("127.0.0.8") > 0) == (0, True)


async def _answer_unread(_scope: Scope, _receive: Receive, send: Send) -> None:
    """As for a key that is wrong: the answer is over before the body has come."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no", "more_body": False})


async def test_a_body_that_comes_after_its_answer_leaves_no_connection_without_a_clock() -> None:
    async with served(_answer_unread, HttpBounds(header_s=0.2)) as (url, config), raw_connection(url) as connection:
        await connection.send(POST % 5)
        assert b" 401 " in await connection.until_answered()
        await connection.send(b"hello")
        await until(lambda: not config.clients)


async def test_an_answer_is_not_lost_while_its_body_still_comes() -> None:
    async with served(_answer_unread, HttpBounds(header_s=30.0)) as (url, _), raw_connection(url) as connection:
        await connection.send(POST % (20 * len(PIECE)))
        for _ in range(20):
            await connection.send(PIECE)
            await asyncio.sleep(0.05)
        answer = await connection.until_answered()
        assert b" 401 " in answer
        assert b" 408 " not in answer


async def test_an_address_that_is_none_is_a_bad_request() -> None:
    async with served(App(), HttpBounds()) as (url, _), raw_connection(url) as connection:
        await connection.send(b"GET http://a HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b" 400 " in await connection.rest()


async def test_a_full_house_ends_who_has_least_time_left_and_no_upload_at_a_fair_pace() -> None:
    app = App()
    bounds = HttpBounds(connections=3, upload_s=60.0, header_s=5.0)
    async with served(app, bounds) as (url, _), AsyncExitStack() as stack:
        upload = await stack.enter_async_context(raw_connection(url))
        await upload.send(POST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") % (2 * len(PIECE)) + PIECE)
        await until(lambda: app.clients)
        for _ in range(2):
            await stack.enter_async_context(raw_connection(url))
        await asyncio.sleep(0.1)
        late = await stack.enter_async_context(raw_connection(url))
        await late.send(GET + b"\r\n")
        assert b" 200 " in await late.until_answered()
        await upload.send(PIECE)
        assert b" 200 " in await upload.rest()


async def test_trailers_are_no_headers_and_nothing_is_kept_of_them() -> None:
    headers: list[tuple[bytes, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers.extend(scope["headers"])
        while (await receive())["more_body"]:
            pass
        await asyncio.sleep(0)
        headers.extend(scope["headers"])
        await _answer_unread(scope, receive, send)

    trailers = b"".join(b"x-%d: y\r\n" % number for number in range(100))
    request = GET.replace(b"GET", b"POST") + b"transfer-encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n"
    async with served(app, HttpBounds()) as (url, _), raw_connection(url) as connection:
        await connection.send(request + GET + b"connection: close\r\n\r\n")
        assert (await connection.rest()).count(b" 401 ") == 2
    assert {name for name, _ in headers} == {b"host", b"transfer-encoding", b"connection"}


async def test_what_nobody_wants_of_a_body_is_read_slowly_by_all_together() -> None:
    bounds = HttpBounds(header_s=1.0, unwanted_bytes_per_s=2**20)
    async with served(_answer_unread, bounds) as (url, config):

        async def flood() -> None:
            async with raw_connection(url) as connection:
                await connection.send(POST % (64 * 2**20))
                assert b" 401 " in await connection.until_answered()
                assert await connection.send_for_ever(PIECE, limit=64 * 2**20), "it took everything at once"

        await asyncio.gather(*(flood() for _ in range(8)))
        await until(lambda: not config.clients)
        await until(lambda: config.clocks.idle)


@pytest.mark.parametrize("app", [App(), _answer_unread], ids=["wanted", "unwanted"])
async def test_a_body_in_very_many_chunks_is_cut(app: ASGIApp) -> None:
    """Each costs as much as thousands of bytes of a large one."""
    request = POST.replace(b"content-length: %d", b"transfer-encoding: chunked")
    async with served(app, HttpBounds()) as (url, _), raw_connection(url) as connection:
        await connection.send(request)
        assert await connection.send_for_ever(b"1\r\na\r\n" * 1000, limit=2**20)


async def test_a_body_in_small_chunks_is_taken() -> None:
    app = App()
    request = POST.replace(b"content-length: %d", b"connection: close\r\ntransfer-encoding: chunked")
    async with served(app, HttpBounds()) as (url, _), raw_connection(url) as connection:
        await connection.send(request + b"40\r\n%b\r\n" % (b"a" * 64) * 10_000 + b"0\r\n\r\n")
        assert b" 200 " in await connection.rest()
    assert len(app.body) == 640_000
