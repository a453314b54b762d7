"""What Ray says of its machines, and how each answer is taken; the real Ray stands in the integration test."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from support.servers.free_ports import free_ports
from tokenyard.clients.ray_nodes import PATH, RayNodes
from tokenyard.core.errors import Unavailable


class Dashboard:
    """Answers what it is told to."""

    def __init__(self) -> None:
        self.status, self.body, self.authorization = 200, "", ""

    def says(self, cluster: Any, status: int = 200) -> None:
        self.status, self.body = status, json.dumps({"result": True, "msg": "", "data": {"clusterStatus": cluster}})

    async def answer(self, request: web.Request) -> web.Response:
        self.authorization = request.headers.get("authorization", "")
        return web.Response(status=self.status, text=self.body)


@pytest.fixture
def dashboard() -> Dashboard:
    return Dashboard()


@pytest.fixture
async def nodes(dashboard: Dashboard) -> AsyncIterator[RayNodes]:
    app = web.Application()
    app.router.add_get(PATH, dashboard.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with RayNodes(f"http://127.0.0.1:{runner.addresses[0][1]}/", "secret") as client:
        yield client
    await runner.cleanup()


async def test_what_each_machine_has_free(dashboard: Dashboard, nodes: RayNodes) -> None:
    usage = {"n1": {"CPU": [2.0, 3.0], "memory": [0.0, 5.0]}, "n2": {"CPU": [0.0, 8.0], "GPU": [1.0, 2.0]}}
    dashboard.says({"time": 1.0, "loadMetricsReport": {"usage": {}, "usageByNode": usage}})
    assert await nodes.free() == [{"CPU": 1.0, "memory": 5.0}, {"CPU": 8.0, "GPU": 1.0}]
    assert dashboard.authorization == "Bearer secret"


@pytest.mark.parametrize(
    "cluster", [None, {}, {"loadMetricsReport": None}, {"loadMetricsReport": {"usageByNode": {}}}, {"usage": 3}]
)
async def test_a_cluster_without_a_report_does_not_say(dashboard: Dashboard, nodes: RayNodes, cluster: Any) -> None:
    dashboard.says(cluster)
    assert await nodes.free() is None


async def test_what_is_no_answer_is_an_outage(dashboard: Dashboard, nodes: RayNodes) -> None:
    dashboard.says({}, status=500)
    with pytest.raises(Unavailable):
        await nodes.free()
    [port] = free_ports(1)
    async with RayNodes(f"http://127.0.0.1:{port}", "") as away:
        with pytest.raises(Unavailable):
            await away.free()
