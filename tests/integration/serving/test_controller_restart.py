"""Serve's controller dies while its replica serves: the replica stays, and stays on the list all the time."""

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from tokenyard.catalog.replicas.discovery import Discovery
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.clients.ray_serve import RayServe
from tokenyard.clients.replica import ReplicaClient
from tokenyard.core.clock import SystemClock

if TYPE_CHECKING:
    from support.ray_cluster.serving_cluster import Cluster

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio]

RESTARTED_TIMEOUT_S = 90.0
LOOKS_AFTER = 40


async def test_the_replica_stays_while_the_controller_restarts(deployed: "Cluster", redis: Redis) -> None:
    async with (
        RayServe(deployed.dashboard_url, deployed.token) as serve,
        ReplicaClient(deployed.bearer) as replicas,
        asyncio.timeout(RESTARTED_TIMEOUT_S),
    ):
        (target,) = await serve.targets()
        registry = ReplicaRegistry(redis)
        discovery = Discovery(serve, replicas, registry, WorkLease(redis, "discovery", 90_000), SystemClock())
        await discovery.step()
        (controller,) = deployed.actors("ServeController")
        controller.kill()
        away, looks = False, 0
        while looks < LOOKS_AFTER:
            await discovery.step()
            found = await registry.read()
            assert found is not None
            assert [one.name for one in found.replicas] == [target.name]
            away = away or not found.complete
            looks = looks + 1 if away and found.complete else 0
            await asyncio.sleep(0.05)
