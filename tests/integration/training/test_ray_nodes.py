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

        async def all_is_free() -> bool:
            found = await nodes.free()
            return found is not None and [node["CPU"] for node in found] == [4.0]

        # Reports are seconds old: what ran here before may still stand in one.
        await until(all_is_free, "a report of the machines", limit_s=60)
        free = await nodes.free()
    assert free is not None
    policy = TrainingPolicy(max_running=None, resources=TrainingResources(cpus=1.5))
    assert policy.free_slots([], free, 0) == 2
