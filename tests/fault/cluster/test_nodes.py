"""A head and two nodes, one replica on each: what is lost comes back, and nobody pays for what they did not get.

The tests go in the order in which they stand: each begins with what the one before left. Their times are in the log.
"""

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.ray_cluster.gateway_load import GatewayLoad
from support.ray_cluster.losses import lose_a_node, lose_the_controller, lose_the_head
from support.ray_cluster.rescaling import SCALING, keep_two, scale_up_and_down
from support.ray_cluster.served_platform import NODES, ServedPlatform, served_platform
from support.ray_cluster.small_model import pulled

_LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedPlatform]:
    folder = tmp_path_factory.mktemp("nodes")
    async with served_platform(folder, pulled(), nodes=len(NODES), autoscaling=SCALING) as platform:
        yield platform


async def test_a_second_replica_comes_on_the_other_node_and_goes(platform: ServedPlatform) -> None:
    rescaled = await scale_up_and_down(platform, GatewayLoad(platform))
    _LOG.warning("scaled: %s", rescaled)
    assert not rescaled.bill.wrong
    assert rescaled.bill.failed == rescaled.bill.cut == 0
    assert rescaled.drained > 0


async def test_a_lost_node(platform: ServedPlatform) -> None:
    await keep_two(platform)
    await platform.new_tenant("globex")
    lost = await lose_a_node(platform, GatewayLoad(platform))
    _LOG.warning("node: %s", lost)
    assert not lost.bill.wrong
    assert lost.bill.failed == 0, "what had not begun was answered by the other replica"
    assert lost.bill.cut + lost.retried > 0, "it had requests inside"


async def test_a_lost_controller(platform: ServedPlatform) -> None:
    await platform.new_tenant("initech")
    away = await lose_the_controller(platform, GatewayLoad(platform))
    _LOG.warning("controller: %s", away)
    assert not away.bill.wrong
    assert away.bill.failed == away.bill.cut == 0
    assert away.answered_meanwhile > 0


async def test_a_lost_head(platform: ServedPlatform) -> None:
    await platform.new_tenant("umbrella")
    away = await lose_the_head(platform, GatewayLoad(platform))
    _LOG.warning("head: %s", away)
    assert not away.bill.wrong
    assert away.bill.failed == away.bill.cut == 0
    assert away.answered_meanwhile > 0
    await platform.deploy()
