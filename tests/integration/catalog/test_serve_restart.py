"""Serve's controller comes back and knows no replicas yet: those that serve on are asked themselves, and stay."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from support.fakes.clock import FrozenClock
from support.fakes.serve.serve_api import ReplicaPort, ServeApi
from support.servers.asgi import running
from tokenyard.catalog.replicas.discovery import Discovery
from tokenyard.catalog.replicas.registry import ReplicaRegistry, ReplicaSnapshot
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.clients.ray_serve import RayServe
from tokenyard.clients.replica import ReplicaClient

MODEL = "smol"


@dataclass
class Installation:
    """Serve's API with one replica behind it, and what a worker does once a second."""

    serve: ServeApi
    replica: ReplicaPort
    clients: tuple[RayServe, ReplicaClient]
    redis: Redis
    clock: FrozenClock
    discovery: Discovery

    def new_worker(self) -> Discovery:
        return Discovery(*self.clients, ReplicaRegistry(self.redis), WorkLease(self.redis, "discovery", 1), self.clock)

    async def look(self) -> ReplicaSnapshot:
        self.clock.advance(1)
        await self.redis.delete("ty:lease:discovery")
        await self.discovery.step()
        found = await ReplicaRegistry(self.redis).read()
        assert found is not None
        return found


@pytest.fixture
async def installation(redis: Redis) -> AsyncIterator[Installation]:
    async with AsyncExitStack() as stack:
        replica, serve = ReplicaPort("r1", MODEL), ServeApi(MODEL)
        serve.replicas["r1"] = urlsplit(await stack.enter_async_context(running(replica))).port or 0
        url = await stack.enter_async_context(running(serve))
        clients = (
            await stack.enter_async_context(RayServe(url, "token")),
            await stack.enter_async_context(ReplicaClient("bearer")),
        )
        clock = FrozenClock()
        discovery = Discovery(*clients, ReplicaRegistry(redis), WorkLease(redis, "discovery", 1), clock)
        one = Installation(serve, replica, clients, redis, clock, discovery)
        assert [found.name for found in (await one.look()).replicas] == ["SERVE_REPLICA::r1"]
        yield one


async def test_replicas_that_a_restarted_controller_does_not_know_yet_stay(installation: Installation) -> None:
    installation.serve.known = False
    for _ in range(5):
        found = await installation.look()
        assert [one.name for one in found.replicas] == ["SERVE_REPLICA::r1"]
        assert not found.complete, "there may be others"
    installation.serve.known = True
    assert (await installation.look()).complete


async def test_a_worker_that_started_just_now_asks_those_of_the_last_list(installation: Installation) -> None:
    installation.serve.known = False
    installation.discovery = installation.new_worker()
    assert [one.name for one in (await installation.look()).replicas] == ["SERVE_REPLICA::r1"]


async def test_a_replica_that_drains_leaves_the_list(installation: Installation) -> None:
    installation.serve.replicas.clear()
    installation.replica.draining = True
    assert (await installation.look()).replicas == ()


async def test_a_replica_that_is_gone_leaves_the_list(installation: Installation) -> None:
    name, _ = installation.serve.replicas.popitem()
    installation.replica.name = f"not {name}"
    found = await installation.look()
    for _ in range(2):
        found = await installation.look()
    assert found.replicas == ()
