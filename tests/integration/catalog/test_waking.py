"""Gateways wait for a model that sleeps, workers ask Serve for it: any of them may die, and the others go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from redis.asyncio import Redis

from support.fakes.serve_api import ReplicaPort, ServeApi, ServeProxy
from support.gateway_stack import until
from support.servers.asgi import running
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.replicas.discovery import Discovery
from tokenyard.catalog.replicas.registry import CALLED_FOR_S, ReplicaRegistry
from tokenyard.catalog.replicas.replica_list import ReplicaList
from tokenyard.catalog.replicas.waking import Waking
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.clients.ray_serve import RayServe
from tokenyard.clients.replica import ReplicaClient
from tokenyard.core.clock import SystemClock
from tokenyard.core.model_files.accelerators import AutoscalingSpec
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import ModelSpec
from tokenyard.core.redis_keys import called_for
from tokenyard.settings import Settings
from tokenyard.storage.redis import connect_redis

SHIPPED = read_model_spec((Settings().models_dir / "smollm2-135m-instruct.yaml").read_bytes())
MODEL = SHIPPED.id
SLEEPS = msgspec.structs.replace(
    SHIPPED, replicas=0, autoscaling=AutoscalingSpec(min_replicas=0, max_replicas=1, target_tokens=100)
)
POLL_S = 0.02


class Installation:
    """Serve with one model that has no replica; workers and gateways come as a test wants."""

    def __init__(self, redis: Redis, serve: ServeApi, proxy: ServeProxy, clients: tuple[RayServe, ReplicaClient]):
        self.redis = redis
        self.serve = serve
        self.proxy = proxy
        self.clients = clients
        self.replica_port = 0

    def started(self) -> None:
        """Let Serve's replica be ready."""
        self.serve.replicas["r1"] = self.replica_port
        self.proxy.started.set()

    def waking(self, spec: ModelSpec = SLEEPS, *, redis: Redis | None = None) -> Waking:
        registry = ReplicaRegistry(redis or self.redis)
        return Waking(BaseModels([spec], Path("/nowhere")), *self.clients, registry, asked_for_s=0.2)

    def worker(self) -> "asyncio.Task[None]":
        """Run what a worker does for replicas, quicker than it does."""
        lease = WorkLease(self.redis, "discovery", 60_000)
        discovery = Discovery(*self.clients, ReplicaRegistry(self.redis), lease, SystemClock())
        steps = (self.waking().step, discovery.step)

        async def work() -> None:
            while True:
                await asyncio.gather(*(step() for step in steps))
                await asyncio.sleep(POLL_S)

        return asyncio.create_task(work())

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator["asyncio.Task[str]"]:
        """Run a gateway in which a request waits; it ends with the name of the replica that came."""
        async with ReplicaList(ReplicaRegistry(self.redis), poll_s=POLL_S) as listed:

            async def wait() -> str:
                while not listed.candidates(MODEL):
                    listed.call_for(MODEL)
                    await listed.looked()
                return listed.candidates(MODEL)[0].name

            waiting = asyncio.create_task(wait())
            try:
                yield waiting
            finally:
                waiting.cancel()


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def installation(redis: Redis) -> AsyncIterator[Installation]:
    async with AsyncExitStack() as stack:
        serve, proxy = ServeApi(MODEL), ServeProxy()
        serve.proxy_port = urlsplit(await stack.enter_async_context(running(proxy))).port or 0
        url = await stack.enter_async_context(running(serve))
        clients = (
            await stack.enter_async_context(RayServe(url, "token")),
            await stack.enter_async_context(ReplicaClient("bearer")),
        )
        one = Installation(redis, serve, proxy, clients)
        replica = ReplicaPort("r1", MODEL)
        one.replica_port = urlsplit(await stack.enter_async_context(running(replica))).port or 0
        yield one


async def test_two_gateways_wait_and_both_get_the_replica(installation: Installation) -> None:
    worker = installation.worker()
    async with installation.gateway() as one, installation.gateway() as other:
        await until(lambda: installation.proxy.waiting == 1)
        await asyncio.sleep(0.1)
        assert installation.proxy.waiting == 1, "one request wakes it, however many wait"
        installation.started()
        async with asyncio.timeout(10):
            assert {await one, await other} == {"SERVE_REPLICA::r1"}
    await ended(worker)


async def test_it_is_asked_for_again_and_again_until_it_is_there(installation: Installation) -> None:
    worker = installation.worker()
    async with installation.gateway():
        await until(lambda: installation.proxy.asked > 3)
    await ended(worker)
    await until(lambda: installation.proxy.waiting == 0)


async def test_a_worker_that_dies_meanwhile_is_followed_by_another(installation: Installation) -> None:
    first = installation.worker()
    async with installation.gateway() as waiting:
        await until(lambda: installation.proxy.waiting == 1)
        await ended(first)
        await until(lambda: installation.proxy.waiting == 0)
        await installation.redis.delete("ty:lease:discovery")
        second = installation.worker()
        await until(lambda: installation.proxy.waiting == 1)
        installation.started()
        async with asyncio.timeout(10):
            assert await waiting
    await ended(second)


async def test_what_nobody_waits_for_is_left_asleep(installation: Installation) -> None:
    await installation.waking().step()
    async with installation.gateway():
        await until(lambda: installation.redis.exists(called_for(MODEL)))
    await asyncio.sleep(2 * POLL_S)
    assert 0 < await installation.redis.ttl(called_for(MODEL)) <= CALLED_FOR_S, "it is forgotten with its gateway"
    assert installation.proxy.asked == 0


async def test_a_model_that_never_sleeps_is_not_woken(installation: Installation) -> None:
    await ReplicaRegistry(installation.redis).call_for([MODEL])
    await installation.waking(SHIPPED).step()
    assert installation.proxy.asked == 0
    await installation.waking().step()
    assert installation.proxy.asked == 1


async def test_a_model_with_a_replica_is_not_asked_for_at_the_proxy(installation: Installation) -> None:
    installation.started()
    await ReplicaRegistry(installation.redis).call_for([MODEL])
    await installation.waking().step()
    assert installation.proxy.asked == 0


async def test_the_worker_goes_on_without_redis_serve_or_the_proxy(installation: Installation) -> None:
    await installation.waking(redis=connect_redis("redis://127.0.0.1:1/0")).step()
    await ReplicaRegistry(installation.redis).call_for([MODEL])
    installation.serve.proxy_port = 9
    await installation.waking().step()
    async with RayServe("http://127.0.0.1:9", "token") as away:
        installation.clients = (away, installation.clients[1])
        await installation.waking().step()
    assert installation.proxy.asked == 0


async def test_a_gateway_without_redis_goes_on_looking() -> None:
    registry = ReplicaRegistry(connect_redis("redis://127.0.0.1:1/0"))
    async with ReplicaList(registry, poll_s=POLL_S) as listed, asyncio.timeout(10):
        for _ in range(3):
            listed.call_for(MODEL)
            await listed.looked()
