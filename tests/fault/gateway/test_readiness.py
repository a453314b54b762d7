"""An outage of what the gateway stands on takes no gateway away: it goes on to answer, and says what is missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, ClientTimeout
from pydantic import SecretStr

from support.gateway_stack import until
from support.servers.asgi import running
from support.servers.gateways import MODEL, GatewayFleet, running_gateways
from tokenyard.bootstrap.gateway import application
from tokenyard.catalog.replicas.registry import ReplicaRegistry, ReplicaSnapshot
from tokenyard.catalog.replicas.replica_list import POLL_S
from tokenyard.core.model_files.accelerators import AutoscalingSpec
from tokenyard.core.model_files.reading import read_model_spec, write_model_spec
from tokenyard.core.redis_keys import called_for
from tokenyard.core.replica import Replica
from tokenyard.settings import Settings

PROBE_LIMIT_S = 1.0  # what Kubernetes gives a probe where nothing else is said


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[GatewayFleet]:
    async with running_gateways(tmp_path, 1) as running:
        yield running


async def parts(fleet: GatewayFleet) -> dict[str, str]:
    """Return how the gateway says that its parts do; it must always be ready, and say so in time."""
    async with fleet.http.get(fleet.urls[0] + "/ready", timeout=ClientTimeout(PROBE_LIMIT_S)) as response:
        body: dict[str, Any] = await response.json()
        assert (response.status, body["status"]) == (200, "ok")
    found: dict[str, str] = body["checks"]
    return found


async def fails(fleet: GatewayFleet, part: str) -> bool:
    return (await parts(fleet))[part] == "failing"


async def test_redis_goes_away(fleet: GatewayFleet) -> None:
    key = await fleet.new_tenant("acme")
    assert await parts(fleet) == {"redis": "ok", "database": "ok", "replicas": "ok"}
    fleet.valkey.kill()
    await until(lambda: fails(fleet, "redis"))
    async with fleet.http.get(fleet.urls[0] + "/metrics") as response:
        lines = (await response.text()).splitlines()
    assert 'tokenyard_dependency_up{dependency="redis"} 0.0' in lines
    assert 'tokenyard_dependency_up{dependency="database"} 1.0' in lines

    refused = await fleet.chat(0, key)
    assert refused.status == 503
    assert int(refused.headers["retry-after"]) > 0
    assert (await refused.json())["error"]["code"] == "server_is_overloaded"
    for path, holder in (("/v1/models", key), ("/v1/files", key), ("/admin/organizations", fleet.admin_key)):
        assert (await fleet.call(0, "GET", path, holder)).status == 200, path
    await fleet.admin("PATCH", "/admin/organizations/acme", {"limits": {"concurrency": 3}})

    fleet.valkey.start()
    await until(lambda: _all_is_well(fleet))


async def test_redis_hangs(fleet: GatewayFleet) -> None:
    with fleet.valkey.paused():
        await until(lambda: fails(fleet, "redis"))
        for _ in range(5):
            await parts(fleet)
            await asyncio.sleep(0.2)


async def test_the_replicas_go_away(fleet: GatewayFleet) -> None:
    key = await fleet.new_tenant("acme")
    nothing = ReplicaSnapshot((), at_ms=fleet.foundation.clock.now_ms() + 1000, complete=True)
    await ReplicaRegistry(fleet.foundation.redis).publish(nothing)
    await until(lambda: fails(fleet, "replicas"))
    refused = await fleet.chat(0, key)
    assert refused.status == 503
    assert int(refused.headers["retry-after"]) > 0


async def test_a_gateway_that_starts_while_all_is_away(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        secret=SecretStr("s" * 32),
        database_url="postgresql+asyncpg://nobody:nothing@127.0.0.1:1/none",
        redis_url="redis://127.0.0.1:1/0",
        ray_token_file=tmp_path,
    )
    async with application(settings, "all") as app, running(app) as url, ClientSession(url) as session:
        async with session.get("/ready") as response:
            failing = {"redis": "failing", "database": "failing", "replicas": "failing"}
            assert (response.status, (await response.json())["checks"]) == (200, failing)


async def _all_is_well(fleet: GatewayFleet) -> bool:
    return set((await parts(fleet)).values()) == {"ok"}


@pytest.fixture
async def sleeping(tmp_path: Path) -> AsyncIterator[GatewayFleet]:
    """Two gateways whose one model has no replica, and needs none while nobody asks."""
    (tmp_path / "models").mkdir()
    spec = read_model_spec((Settings().models_dir / f"{MODEL}.yaml").read_bytes())
    scaling = AutoscalingSpec(min_replicas=0, max_replicas=1, target_tokens=1000)
    described = write_model_spec(msgspec.structs.replace(spec, autoscaling=scaling))
    (tmp_path / "models" / f"{MODEL}.yaml").write_bytes(described)
    async with running_gateways(tmp_path, 2, models=(MODEL,), models_dir=tmp_path / "models") as running:
        await publish(running, ())
        yield running


async def publish(fleet: GatewayFleet, replicas: tuple[Replica, ...]) -> None:
    """Do what discovery does."""
    at_ms = fleet.foundation.clock.now_ms()
    await ReplicaRegistry(fleet.foundation.redis).publish(ReplicaSnapshot(replicas, at_ms, complete=True))


async def test_a_model_that_sleeps_is_not_missing_and_two_gateways_wait_for_it(sleeping: GatewayFleet) -> None:
    fleet, redis = sleeping, sleeping.foundation.redis
    keys = [await fleet.new_tenant(name) for name in ("acme", "globex")]
    assert await parts(fleet) == {"redis": "ok", "database": "ok"}
    await asyncio.sleep(2 * POLL_S)  # until both gateways have read the list
    requests = [asyncio.create_task(fleet.chat(gateway, key)) for gateway, key in enumerate(keys)]
    await until(lambda: redis.exists(called_for(MODEL)))
    for path, holder in (("/v1/models", keys[0]), ("/v1/files", keys[1]), ("/admin/organizations", fleet.admin_key)):
        assert (await fleet.call(0, "GET", path, holder)).status == 200, path
    assert not any(request.done() for request in requests)
    assert await parts(fleet) == {"redis": "ok", "database": "ok"}
    await publish(fleet, (Replica("mock", MODEL, fleet.server_url),))
    assert [(await request).status for request in requests] == [200, 200]
    assert len(fleet.server.log) == 2
