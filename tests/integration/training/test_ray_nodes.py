"""What the real Ray says of its machines' resources."""

import asyncio

import pytest

from support.ray_cluster.private_ray import Cluster
from support.waiting import until
from tokenyard.clients.ray_nodes import RayNodes
from tokenyard.core.training import TrainingResources
from tokenyard.finetune.scheduling import TrainingPolicy

pytestmark = pytest.mark.timeout(300)


async def test_a_private_ray_has_room_for_what_it_has_cpus_for(cluster: Cluster) -> None:
    token = (await asyncio.to_thread(cluster.token_file.read_text)).strip()
    async with RayNodes(cluster.url, token) as nodes:

        async def says() -> bool:
            return await nodes.free() is not None

        await until(says, "a report of the machines", limit_s=60)
        free = await nodes.free()
    assert free is not None
    assert [node["CPU"] for node in free] == [4.0]
    policy = TrainingPolicy(max_running=None, resources=TrainingResources(cpus=1.5))
    assert policy.free_slots([], free, 0) == 2
