"""What clients without a key may cost a real gateway process; one that behaves well is served all the while."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from support.gateway_stack import until
from support.raw_http import raw_connection
from support.servers.gateways import GatewayFleet, running_gateways

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTIONS, OF_ONE = 60, 30
HEADER_S, UPLOAD_S = 1.0, 3.0
FLOOD, OTHER, PROXY = "127.0.0.5", "127.0.0.6", "127.0.0.9"
GET = b"GET /health HTTP/1.1\r\nhost: a\r\n"
POST = b"POST /v1/model_aliases HTTP/1.1\r\nhost: a\r\n"  # reads its body before it asks for a key
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayFleet]:
    async with running_gateways(
        tmp_path_factory.mktemp("floods"),
        1,
        max_connections=CONNECTIONS,
        max_connections_per_address=OF_ONE,
        header_timeout_s=HEADER_S,
        upload_grace_s=UPLOAD_S,
        trusted_proxies=(PROXY,),
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def key(fleet: GatewayFleet) -> AsyncIterator[str]:
    """A tenant's key; its holder is served all through the test, and memory stays as it was."""
    made = await fleet.new_tenant(f"tenant-{len(fleet.server.log)}")
    assert (await fleet.chat(0, made)).status == 200
    served = 0
    process = fleet.process(0)
    before = process.memory_info().rss

    async def behave() -> None:
        nonlocal served
        while True:
            assert (await fleet.chat(0, made)).status == 200
            served += 1
            await asyncio.sleep(0.05)

    behaving = asyncio.create_task(behave())
    yield made
    await until(lambda: served > 2 or behaving.done())
    assert not behaving.done(), behaving
    behaving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await behaving
    # What the floods may send is ten times that, and is more with each connection.
    assert process.memory_info().rss - before < 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET + b"".join(b"x-%d: y\r\n" % number for number in range(100)) + b"\r\n", 431),
        (GET + b"x: " + b"a" * 33_000 + b"\r\n\r\n", 431),
        (b"GET /health?" + b"a" * 9_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
        (b"GARBAGE\r\n\r\n", 400),
    ],
    ids=["headers", "bytes", "url", "garbage"],
)
async def test_what_is_too_large_is_refused_in_openai_s_shape(
    fleet: GatewayFleet, request_: bytes, status: int
) -> None:
    async with raw_connection(fleet.urls[0]) as connection:
        await connection.send(request_)
        found, headers, body = await connection.answer()
    assert (found, body["error"]["type"]) == (status, "invalid_request_error")
    async with fleet.http.get(fleet.urls[0] + "/metrics") as response:
        assert f'tokenyard_edge_refusals_total{{status="{status}"}}' in await response.text()
    assert headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "request_",
    [
        GET + b"".join(b"x-%d: y\r\n" % number for number in range(98)) + b"connection: close\r\n\r\n",
        GET + b"connection: close\r\nx: " + b"a" * 32_000 + b"\r\n\r\n",
        b"GET /health?" + b"a" * 8_000 + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        (GET + b"\r\n") * 10 + GET + b"connection: close\r\n\r\n",
    ],
    ids=["headers", "bytes", "url", "pipelined"],
)
async def test_what_is_large_enough_for_anybody_is_served(fleet: GatewayFleet, request_: bytes) -> None:
    async with raw_connection(fleet.urls[0]) as connection:
        await connection.send(request_)
        said = await connection.rest()
    assert said.count(b"HTTP/1.1 200 OK") == request_.count(b"GET ")


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"", b""),
        (b"\r\n", b"\r\n"),
        (GET + b"x: ", b"a"),
        (POST + b"content-length: 100000\r\n\r\n", b"a"),
        (CHUNKED, b"1\r\na\r\n"),
    ],
    ids=["silence", "empty lines", "headers", "body", "chunks"],
)
async def test_what_does_not_arrive_in_time(fleet: GatewayFleet, key: str, beginning: bytes, drop: bytes) -> None:
    """A byte now and then does not make it longer."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with raw_connection(fleet.urls[0], FLOOD) as connection:
        await connection.send(beginning)
        closed = not drop or await connection.send_for_ever(drop, limit=10_000, pause_s=0.1)
        said = await connection.rest()
    assert closed
    assert loop.time() - began >= HEADER_S, "it had its time"
    # A reset may overtake it; who sent nothing of a request is answered nothing.
    assert said == b"" or b" 408 " in said


async def test_who_sends_at_a_fair_pace_has_more_time(fleet: GatewayFleet, key: str) -> None:
    body = b'{"alias": "best", "model": "smollm2-135m-instruct"}' + b" " * 200_000
    head = b"POST /v1/model_aliases HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n"
    head += b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (key.encode(), len(body))
    async with raw_connection(fleet.urls[0], FLOOD) as connection:
        await connection.send(head)
        for at in range(0, len(body), 8_000):
            await connection.send(body[at : at + 8_000])
            await asyncio.sleep(0.1)
        status, _, answer = await connection.answer()
    assert status == 200, answer


async def test_a_client_s_connections_are_bounded_and_only_its_own(fleet: GatewayFleet, key: str) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(OF_ONE):
            await stack.enter_async_context(raw_connection(fleet.urls[0], FLOOD))
        async with raw_connection(fleet.urls[0], FLOOD) as refused:
            status, headers, body = await refused.answer()
        assert (status, headers["retry-after"], body["error"]["code"]) == (429, "1", "rate_limit_exceeded")
        async with raw_connection(fleet.urls[0], OTHER) as other:
            await other.send(GET + b"connection: close\r\n\r\n")
            assert b" 200 " in await other.rest()
    await _until_it_is_let_in(fleet, FLOOD)


async def test_who_keeps_us_waiting_makes_room_when_there_are_too_many_connections(fleet: GatewayFleet) -> None:
    """Such as the probes of Kubernetes, which would end a process that lets nobody in."""
    async with AsyncExitStack() as stack:
        silent = [
            await stack.enter_async_context(raw_connection(fleet.urls[0], f"127.0.1.{number}"))
            for number in range(CONNECTIONS)
        ]
        for number in range(5):
            async with raw_connection(fleet.urls[0], f"127.0.2.{number}") as connection:
                await connection.send(GET + b"connection: close\r\n\r\n")
                assert b" 200 " in await connection.rest()
        async with asyncio.timeout(HEADER_S):
            assert await silent[0].rest() == b"", "the one that has waited longest"


async def test_behind_a_trusted_proxy_a_client_s_requests_are_bounded(fleet: GatewayFleet, key: str) -> None:
    begun = POST + b"x-forwarded-for: 198.51.100.1, %s\r\ncontent-length: 100\r\n\r\n"
    whole = GET + b"connection: close\r\nx-forwarded-for: %s\r\n\r\n"
    async with AsyncExitStack() as stack:
        for _ in range(OF_ONE):
            connection = await stack.enter_async_context(raw_connection(fleet.urls[0], PROXY))
            await connection.send(begun % b"192.0.2.1")
        for address, client, status in (
            (PROXY, b"192.0.2.1", b" 429 "),
            (PROXY, b"192.0.2.2", b" 200 "),
            (PROXY, b"192.0.2.1, 192.0.2.2", b" 200 "),
            (OTHER, b"192.0.2.1", b" 200 "),  # whom nobody trusts
        ):
            async with raw_connection(fleet.urls[0], address) as connection:
                await connection.send(whole % client)
                assert status in await connection.rest(), (address, client)


async def test_what_asks_to_be_no_http_any_more_is_answered_and_closed(fleet: GatewayFleet, key: str) -> None:
    async with raw_connection(fleet.urls[0], FLOOD) as connection:
        await connection.send(GET + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n")
        assert b" 200 " in await connection.rest()


async def _until_it_is_let_in(fleet: GatewayFleet, address: str) -> None:
    async with asyncio.timeout(10):
        while True:
            async with raw_connection(fleet.urls[0], address) as connection:
                await connection.send(GET + b"connection: close\r\n\r\n")
                if b" 200 " in await connection.rest():
                    return
