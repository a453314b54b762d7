"""Requests under an idempotency key, and processes that die, end, or lose Redis meanwhile; and the books after it."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from aiohttp import ClientResponse, ClientSession
from redis.asyncio import Redis

from support.billing.stand import charges, reconciler, stream_length, worker
from support.fakes.admission_requests import open_buckets
from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, GatewayStack, gateway_stack, until
from support.servers.free_ports import free_port
from support.servers.gateways import MODEL, GatewayFleet, running_gateways
from support.servers.valkey import Valkey
from tokenyard.core.ids import OrganizationId
from tokenyard.gateway.idempotency import run
from tokenyard.limits.sweeper import Sweeper
from tokenyard.metering.events import Outcome
from tokenyard.storage.redis import connect_redis

LEASE_MS = 2_000
TOKENS = 20
ASK: dict[str, object] = {"model": BASE.id, "messages": HELLO}
ONCE = {"idempotency_key": "order 17"}


class Tenant:
    """Asks a fleet for one stream under one idempotency key."""

    def __init__(self, fleet: GatewayFleet, key: str, organization: OrganizationId) -> None:
        self._fleet = fleet
        self._key = key
        self.organization = organization

    async def post(self, gateway: int, **headers: str) -> ClientResponse:
        body = {"model": MODEL, "messages": HELLO, "max_tokens": TOKENS, "stream": True}
        named = {name.replace("_", "-"): value for name, value in {**ONCE, **headers}.items()}
        url = f"{self._fleet.urls[gateway]}/v1/chat/completions"
        return await self._fleet.http.post(url, json=body, headers={"authorization": f"Bearer {self._key}", **named})

    async def leave(self, gateway: int, lines: int) -> bytes:
        """Take so many lines of the stream, and close the connection."""
        response = await self.post(gateway)
        received = b"".join([await response.content.readline() for _ in range(lines)])
        response.close()
        return received

    async def answered(self, gateway: int, **headers: str) -> tuple[ClientResponse, bytes]:
        """Ask until the key is not in use; return the answer."""
        async with asyncio.timeout(30):
            while True:
                response = await self.post(gateway, **headers)
                data = await response.read()
                if response.status != 409:
                    return response, data
                await asyncio.sleep(0.1)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[GatewayFleet]:
    async with running_gateways(tmp_path, 2, hold_lease_ms=LEASE_MS, hold_renewal_ms=500) as running:
        running.server.behaviour.tokens, running.server.behaviour.token_delay_s = TOKENS, 0.05
        yield running


@pytest.fixture
async def tenant(fleet: GatewayFleet) -> Tenant:
    key = await fleet.new_tenant("acme")
    return Tenant(fleet, key, OrganizationId((await fleet.admin("GET", "/admin/organizations/acme"))["id"]))


def _process(fleet: GatewayFleet, gateway: int) -> psutil.Process:
    port = str(urlsplit(fleet.urls[gateway]).port)
    (found,) = [child for child in psutil.Process().children() if child.environ().get("TOKENYARD_GATEWAY_PORT") == port]
    return found


async def _charged(fleet: GatewayFleet, organization: OrganizationId) -> list[tuple[int, str]]:
    """Let the ledger catch up; return tokens and rule of each charge, and check that the books agree."""
    foundation = fleet.foundation
    stand = worker(foundation.database, foundation.redis, report_wait_ms=0)
    async with asyncio.timeout(60):
        while True:
            await Sweeper(foundation.redis, renewal_ms=0).sweep()
            await stand.consumer.step()
            found = await charges(foundation.database)
            if len(found) == len(fleet.server.log) and not await stream_length(foundation.redis, organization):
                break
            await asyncio.sleep(0.05)
    await stand.leases.release()
    assert (await reconciler(foundation.database, foundation.redis).reconcile()).ok
    return [(charge.completion_tokens, charge.rule) for charge in found.values()]


async def test_who_left_is_charged_once_and_has_it_from_another_process(fleet: GatewayFleet, tenant: Tenant) -> None:
    received = await tenant.leave(0, lines=9)
    response, whole = await tenant.answered(1)
    assert response.headers["idempotent-replayed"] == "true"
    assert whole.startswith(received)
    got = received[: received.rfind(b"\n\n") + 2]
    last = re.findall(rb"(?m)^id: (\d+)$", got)[-1].decode()
    _, rest = await tenant.answered(1, last_event_id=last)
    assert got + rest == whole
    assert await _charged(fleet, tenant.organization) == [(TOKENS, "completed")]


async def test_a_killed_process_holds_the_key_for_a_lease(fleet: GatewayFleet, tenant: Tenant) -> None:
    """After that it may run again; each run is charged as any other: the first by what its replica reports."""
    await tenant.leave(0, lines=9)
    _process(fleet, 0).kill()
    assert (await tenant.post(1)).status == 409, "for as long as its lease may be renewed"
    response, whole = await tenant.answered(1)
    assert response.status == 200
    assert "idempotent-replayed" not in response.headers
    _, again = await tenant.answered(1)
    assert again == whole
    first, second = sorted(await _charged(fleet, tenant.organization))
    assert first == (fleet.server.log[0].completion_tokens, "gateway_lost")
    assert 0 < first[0] < TOKENS
    assert second == (TOKENS, "completed")


async def test_a_process_that_is_told_to_end_finishes_first(fleet: GatewayFleet, tenant: Tenant) -> None:
    fleet.server.behaviour.token_delay_s = 0.1
    received = await tenant.leave(0, lines=6)
    process = _process(fleet, 0)
    process.send_signal(signal.SIGTERM)
    response, whole = await tenant.answered(1)
    assert response.headers["idempotent-replayed"] == "true"
    assert whole.startswith(received)
    await asyncio.to_thread(process.wait, 20)
    assert await _charged(fleet, tenant.organization) == [(TOKENS, "completed")]


@asynccontextmanager
async def _stand(folder: Path) -> AsyncIterator[tuple[Valkey, Redis, GatewayStack]]:
    (folder / "valkey").mkdir()
    valkey = Valkey(folder / "valkey", free_port())
    valkey.start()
    redis = connect_redis(valkey.url)
    try:
        async with gateway_stack(redis, folder) as gateway:
            gateway.server.behaviour.tokens, gateway.server.behaviour.token_delay_s = TOKENS, 0.02
            yield valkey, redis, gateway
    finally:
        await redis.aclose()
        valkey.kill()


async def test_without_redis_nothing_is_run(tmp_path: Path) -> None:
    async with _stand(tmp_path) as (valkey, redis, gateway), ClientSession() as session:
        valkey.kill()
        refused = await gateway.post(session, ASK, **ONCE)
        assert refused.status == 503
        assert "retry-after" in refused.headers
        await refused.read()
        valkey.start()
        await open_buckets(redis)
        assert await gateway.status(session, ASK, **ONCE) == 200


async def test_a_redis_that_comes_back_gets_the_reply(tmp_path: Path) -> None:
    async with _stand(tmp_path) as (valkey, redis, gateway), ClientSession() as session:
        response = await gateway.post(session, {**ASK, "stream": True}, **ONCE)
        valkey.kill()
        whole = await response.read()
        assert whole.endswith(b"data: [DONE]\n\n")
        valkey.start()
        await open_buckets(redis)
        await until(lambda: _kept(gateway, "kept"))
        again = await gateway.post(session, {**ASK, "stream": True}, **ONCE)
        assert await again.read() == whole
        (settled,) = await gateway.settled(1)
        assert settled.outcome is Outcome.COMPLETED


async def test_a_redis_that_stays_away_costs_the_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was served and is charged; under the same key it is run and charged again once the lease has ended."""
    monkeypatch.setattr(run, "KEEP_LIMIT_S", 0.0)
    async with _stand(tmp_path) as (valkey, redis, gateway), ClientSession() as session:
        response = await gateway.post(session, {**ASK, "stream": True}, **ONCE)
        valkey.kill()
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
        await until(lambda: _kept(gateway, "lost"))
        valkey.start()
        await open_buckets(redis)
        await gateway.settled(1)
        assert await gateway.status(session, {**ASK, "stream": True}, **ONCE) == 409
        (name,) = [name async for name in redis.scan_iter(match="*:idempotent:*")]
        await redis.delete(name)  # as the end of its lease does
        again = await gateway.post(session, {**ASK, "stream": True}, **ONCE)
        assert again.status == 200
        assert "idempotent-replayed" not in again.headers
        await again.read()
        assert [event.outcome for event in await gateway.settled(2)] == 2 * [Outcome.COMPLETED]


def _kept(gateway: GatewayStack, outcome: str) -> bool:
    return gateway.registry.get_sample_value("tokenyard_idempotent_requests_total", {"outcome": outcome}) == 1
