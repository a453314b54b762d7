"""A model that nobody asks for has no replica; two organizations ask at two gateways, and parts die meanwhile.

The tests go in the order in which they stand: each begins with what the one before left. Their times are in the log.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import msgspec
import psutil
import pytest
import pytest_asyncio

from support.ray_cluster.charge_table import bill
from support.ray_cluster.gateway_load import Asked, GatewayLoad
from support.ray_cluster.losses import kill_the_controller
from support.ray_cluster.served_platform import ServedPlatform, served_platform, waited
from support.ray_cluster.small_model import MODEL, pulled
from support.servers.free_ports import free_port
from support.servers.installation import running_process
from tokenyard.core.model_files.accelerators import AutoscalingSpec
from tokenyard.settings import Settings
from tokenyard.stack.installation import environment_of

_LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

SLEEPY = AutoscalingSpec(
    min_replicas=0,
    max_replicas=1,
    target_tokens=10_000,
    downscale_delay_s=0,
    to_zero_delay_s=8,
    wake_queue=4,
    wake_wait_s=180,
)
AWAKE = msgspec.structs.replace(SLEEPY, to_zero_delay_s=900)
"""While the platform starts."""
ASLEEP_LIMIT_S = 120.0
ROWS = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}\n' * 10


class Town:
    """A platform whose model sleeps, two of its tenants, and two gateways."""

    def __init__(self, platforms: list[ServedPlatform], stack: AsyncExitStack) -> None:
        self.platforms = platforms
        self.loads = [GatewayLoad(platform) for platform in platforms]
        self._stack = stack

    async def asleep(self) -> float:
        """Wait until there is no replica, for gateways and for Serve; return how many seconds that took."""
        return await self.platforms[0].until(lambda told: not told, limit_s=ASLEEP_LIMIT_S)

    def ask(self, tenant: int, *, streamed: bool = True) -> "asyncio.Task[Asked]":
        return asyncio.create_task(self.loads[tenant].ask(MODEL, max_tokens=16, streamed=streamed))

    async def waits(self, number: int) -> bool:
        """Tell whether so many requests wait, at both gateways together."""
        return sum([await self._waiting(platform.url) for platform in self.platforms]) == number

    async def _waiting(self, url: str) -> int:
        async with self.platforms[0].http.get(f"{url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        (found,) = [line for line in lines if line.startswith("tokenyard_requests_waiting_for_wake ")]
        return int(float(found.split()[-1]))

    async def is_waking(self) -> bool:
        """Tell whether Serve has begun to start a replica."""
        return bool(self.platforms[0].cluster.actors("ServeReplica"))

    async def has_begun(self) -> bool:
        """Tell whether any answer has begun to come."""
        return any(one.tokens > 0 for load in self.loads for one in load.asked)

    async def replace_worker(self) -> None:
        """Kill the worker, and start another one."""
        settings = self.platforms[0].settings
        listening = {
            one.pid
            for one in psutil.net_connections("tcp")
            if one.laddr and one.laddr.port == settings.worker_port and one.status == psutil.CONN_LISTEN
        }
        (pid,) = listening
        psutil.Process(pid).kill()
        await start(self._stack, "worker", settings)

    async def serves_all_that_needs_no_replica(self) -> None:
        """Do what keys, files, jobs and the dashboard need."""
        for platform in self.platforms:
            headers = {"authorization": f"Bearer {platform.key}"}
            async with platform.http.get(f"{platform.url}/ready") as answer:
                assert set((await answer.json())["checks"].values()) == {"ok"}
            for path in ("/v1/models", "/v1/files", "/v1/fine_tuning/jobs"):
                async with platform.http.get(platform.url + path, headers=headers) as answer:
                    assert answer.status == 200, path
            form = aiohttp.FormData({"purpose": "fine-tune"})
            form.add_field("file", ROWS, filename="rows.jsonl")
            async with platform.http.post(f"{platform.url}/v1/files", data=form, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
            slug = f"while-asleep-{platform.settings.gateway_port}"
            await platform.admin("POST", "/admin/organizations", {"name": slug, "slug": slug})
            await platform.admin("POST", f"/admin/organizations/{slug}/api_keys", {"name": "test"})


async def start(stack: AsyncExitStack, name: str, settings: Settings) -> None:
    """Run one of our processes until the stack ends."""
    port = settings.worker_port if name == "worker" else settings.gateway_port
    process = running_process(name, environment_of(settings), port, settings.data_dir)
    await asyncio.to_thread(process.__enter__)
    stack.push_async_callback(asyncio.to_thread, process.__exit__, None, None, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            served_platform(tmp_path_factory.mktemp("town"), pulled(), autoscaling=AWAKE)
        )
        settings = first.settings.model_copy(update={"gateway_port": free_port()})
        await start(stack, "gateway", settings)
        second = replace(first, settings=settings)
        await second.new_tenant("beta")
        first.describe(autoscaling=SLEEPY)
        await first.deploy()
        yield Town([first, second], stack)


async def test_it_sleeps_and_wakes_and_nothing_is_lost(town: Town) -> None:
    await town.asleep()
    await town.serves_all_that_needs_no_replica()

    began = time.monotonic()
    asked = [town.ask(0), town.ask(0, streamed=False), town.ask(1), town.ask(1, streamed=False)]
    await waited(lambda: town.waits(4), limit_s=10)
    refused = await town.ask(0)
    assert (refused.status, "wait for the model" in refused.said) == (429, True)
    await town.replace_worker()
    await waited(town.has_begun, limit_s=SLEEPY.wake_wait_s)
    _LOG.warning("first token %.1f s after it was asked for", time.monotonic() - began)
    answers = await asyncio.gather(*asked)
    assert [one.status for one in answers] == [200] * 4
    assert all(one.usage for one in answers)

    _LOG.warning("asleep %.1f s after the last answer", await town.asleep())
    # Gateways may not have heard of it yet: the replica that goes answers, or the next one.
    assert (await town.ask(1)).usage is not None

    tables = [await bill(load.platform, load.asked) for load in town.loads]
    assert [table.wrong for table in tables] == [[], []]
    assert [(table.answered, table.cut, table.failed) for table in tables] == [(2, 0, 1), (3, 0, 0)]


async def test_serves_controller_may_die_while_it_wakes(town: Town) -> None:
    await town.asleep()
    before = [len(load.asked) for load in town.loads]
    began = time.monotonic()
    asked = [town.ask(0), town.ask(1)]
    await waited(town.is_waking, limit_s=SLEEPY.wake_wait_s)
    await kill_the_controller(town.platforms[0])
    answers = await asyncio.gather(*asked)
    _LOG.warning("answered %.1f s after it was asked for", time.monotonic() - began)
    assert [one.status for one in answers] == [200, 200]
    assert [len(load.asked) for load in town.loads] == [count + 1 for count in before]
    for load in town.loads:
        assert (await bill(load.platform, load.asked)).wrong == []
    await town.asleep()
