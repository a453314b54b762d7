"""Hostile clients against a real gateway process: a tenant beside them is served all the while, and memory is flat."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from random import randrange, sample

import pytest
import pytest_asyncio
from aiohttp import ClientSession, TCPConnector

from support.attacks.attacking import attacking
from support.attacks.http_attack import AttackReport
from support.attacks.http_shapes import SHAPES
from support.attacks.long_arrays import LongArrays
from support.attacks.odd_json import odd_bodies
from support.attacks.table import ATTACKS, CHUNKED, GET, HEALTH, MODEL, VALID, head, post
from support.gateway_stack import CHAT, until
from support.raw_http import raw_connection
from support.redis_reader import read_usage
from support.servers.gateways import GatewayFleet, running_gateways
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, holds
from tokenyard.metering.events import Settled

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLACES = 60
EVERY_PLACE = os.environ.get("LONG_ARRAYS") == "all"
SERVED = 20  # requests of the tenant: so long does an attack take
ANSWER_LIMIT_S = 30.0  # far beyond what any of them may take, on a machine that does much else, too
_STATUS = re.compile(rb"(?:^|\n|})HTTP/1\.1 (\d{3}) ")
# A connection has its buffers and its parser, and there are as many as a process takes.
GROWTH_BYTES = 96 * 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayFleet]:
    folder = tmp_path_factory.mktemp("attacks")
    async with running_gateways(folder, 1, header_timeout_s=2.0, upload_grace_s=3.0) as running:
        running.server.behaviour.tokens = 1_000
        # It is made once, and takes more memory meanwhile than all of an attack.
        await running.call(0, "GET", "/openapi.json", "")
        yield running


@pytest.mark.parametrize("name", ATTACKS)
async def test_beside_an_attack(fleet: GatewayFleet, name: str) -> None:
    number = list(ATTACKS).index(name)
    tenant, hostile = [await fleet.new_tenant(f"{kind}-{number}") for kind in ("tenant", "hostile")]
    organization = OrganizationId((await fleet.admin("GET", f"/admin/organizations/hostile-{number}"))["id"])
    process = fleet.process(0)
    for _ in range(5):
        await _is_served(fleet, tenant)
    before, seen = process.memory_info().rss, len(fleet.server.log)
    async with _beside(fleet, name, hostile) as report:
        for _ in range(SERVED):
            await _is_served(fleet, tenant)
        grown = process.memory_info().rss - before
        if ATTACKS[name].paid:  # on a busy machine the tenant may be done before the attacker has begun
            await until(lambda: len(fleet.server.log) > seen + SERVED)
    assert not report.problems, report
    assert report.answers or report.ended or not ATTACKS[name].reads, "it has met the gateway"
    assert grown < GROWTH_BYTES, f"{grown / 2**20:.0f} MiB"
    await until(lambda: _is_settled(fleet, organization))
    assert await _cost_something(fleet, organization) == ATTACKS[name].paid


@asynccontextmanager
async def _beside(fleet: GatewayFleet, name: str, key: str) -> AsyncIterator[AttackReport]:
    attack = attacking(fleet.urls[0], name, key)
    report = await asyncio.to_thread(attack.__enter__)
    try:
        yield report
    finally:
        await asyncio.to_thread(attack.__exit__, None, None, None)


async def _is_served(fleet: GatewayFleet, key: str) -> None:
    async with asyncio.timeout(ANSWER_LIMIT_S):
        answer = await fleet.chat(0, key)
    assert answer.status == 200, await answer.text()


async def _is_settled(fleet: GatewayFleet, organization: OrganizationId) -> bool:
    return not await fleet.foundation.redis.zcard(holds(bucket_of(organization)))


async def _cost_something(fleet: GatewayFleet, organization: OrganizationId) -> bool:
    events = await read_usage(fleet.foundation.redis, organization)
    return any(isinstance(event, Settled) and event.claims.organization == organization for event in events)


@pytest.mark.parametrize("name", SHAPES)
async def test_an_unclear_request_is_refused_with_all_that_comes_after_it(fleet: GatewayFleet, name: str) -> None:
    said = await _said(fleet, SHAPES[name])
    assert _STATUS.findall(said) == [b"400"]
    assert b'"invalid_request_error"' in said


@pytest.mark.parametrize(
    "request_",
    [
        HEALTH + b"content-length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\nhello",
        HEALTH + CHUNKED + b"24\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\nx\r\n0\r\n\r\n",
        HEALTH + b"connection: close\r\n\r\n" + GET % b"/smuggled" + b"\r\n",
        HEALTH + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n" + GET % b"/smuggled" + b"\r\n",
        GET % b"http://elsewhere.example/health" + b"connection: close\r\n\r\n",
    ],
    ids=["body of a GET", "chunks of a GET", "after the last", "after an upgrade", "of another host"],
)
async def test_what_looks_like_two_requests_is_one(fleet: GatewayFleet, request_: bytes) -> None:
    said = await _said(fleet, request_.replace(b"host: a\r\n", b"host: a\r\nconnection: close\r\n", 1))
    assert _STATUS.findall(said) == [b"200"]
    assert b"elsewhere" not in said


async def test_a_trailer_is_no_header_of_its_request_or_the_next(fleet: GatewayFleet) -> None:
    key = (await fleet.new_tenant("trailing")).encode()
    trailing = head(CHAT) + CHUNKED + b"0\r\nauthorization: Bearer %b\r\nx-api-key: %b\r\n\r\n" % (key, key)
    said = await _said(fleet, trailing * 2 + GET % b"/v1/models" + b"connection: close\r\n\r\n")
    assert _STATUS.findall(said) == [b"401"] * 3


async def _said(fleet: GatewayFleet, request: bytes) -> bytes:
    async with raw_connection(fleet.urls[0]) as connection:
        await connection.send(request)
        return await connection.rest()


@pytest.mark.parametrize("path", VALID)
async def test_odd_json_is_the_client_s_fault_and_costs_nothing(fleet: GatewayFleet, path: str) -> None:
    key = await fleet.new_tenant(f"odd{path.replace('/', '-').replace('_', '-')}")
    valid, number, text = VALID[path]
    seen = len(fleet.server.log)
    for name, body in odd_bodies(valid, number, text):
        assert await _status(fleet, key, path, body) in (400, 413), (path, name)
    assert len(fleet.server.log) == seen


async def test_very_many_elements_anywhere_are_refused_or_not_passed_on(fleet: GatewayFleet) -> None:
    description = await (await fleet.call(0, "GET", "/openapi.json", "")).json()
    found = [*LongArrays(description, MODEL).bodies()]
    assert len(found) > PLACES
    for places, (path, place, body) in enumerate(found if EVERY_PLACE else sample(found, PLACES)):
        seen = len(fleet.server.log)
        key = await fleet.new_tenant(f"many-{places}")  # who is refused again and again would have to wait
        if await _status(fleet, key, path, body) == 200:
            (sent,) = fleet.server.log[seen:]
            assert len(str(sent.body)) < 10_000, (path, place)
        else:
            assert len(fleet.server.log) == seen


async def _status(fleet: GatewayFleet, key: str, path: str, body: bytes) -> int:
    """Send it; any refusal must be the client's fault, and told as such."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    # Each from an address of its own: who is refused again and again would have to wait.
    connector = TCPConnector(local_addr=(f"127.2.{randrange(256)}.{randrange(1, 255)}", 0))
    async with (
        ClientSession(connector=connector) as http,
        http.post(fleet.urls[0] + path, data=BytesIO(body), headers=headers) as answer,
    ):
        told = await answer.json()
    said = (path, body[:300], answer.status, told)
    assert answer.status in (200, 400, 403, 404, 413), said
    assert answer.status == 200 or told["error"]["type"] in ("invalid_request_error", "request_too_large"), said
    return answer.status


async def test_of_a_field_that_comes_twice_the_one_counts_that_is_sent(fleet: GatewayFleet) -> None:
    """Else a request would be held for by one and served by the other."""
    key = await fleet.new_tenant("twice")
    body = b'{"model":"%b","max_tokens":1,"messages":[{"role":"user","content":"a"}],"max_tokens":5}' % MODEL.encode()
    request = post(CHAT, body, key.encode()).replace(b"host: a\r\n", b"host: a\r\nconnection: close\r\n")
    assert b'"completion_tokens":5' in await _said(fleet, request)
    assert fleet.server.log[-1].body["max_tokens"] == 5


@pytest.mark.parametrize("number", ["9" * 30, "-" + "9" * 30, "1.5e300"])
async def test_large_numbers_in_a_client_s_own_json_are_passed_on(fleet: GatewayFleet, number: str) -> None:
    key = await fleet.new_tenant(f"number-{len(fleet.server.log)}-{len(number)}")
    schema = b'{"type":"object","properties":{"a":{"type":"number","maximum":%b}}}' % number.encode()
    form = b'{"type":"json_schema","json_schema":{"name":"a","schema":%b}}' % schema
    body = b'{"model":"%b","messages":[{"role":"user","content":"a"}],"response_format":%b}' % (MODEL.encode(), form)
    request = post(CHAT, body, key.encode()).replace(b"host: a\r\n", b"host: a\r\nconnection: close\r\n")
    assert b" 200 " in await _said(fleet, request)
    sent = fleet.server.log[-1].body["response_format"]["json_schema"]["schema"]
    assert sent["properties"]["a"]["maximum"] == float(number)
