"""Replicas become others, more and fewer under load through the gateway: no request is lost, none is billed twice."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.ray_cluster.gateway_load import GatewayLoad
from support.ray_cluster.rescaling import SCALING, change_the_model, scale_up_and_down
from support.ray_cluster.served_platform import served_platform

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.asyncio]


@pytest.fixture
async def load(tmp_path: Path, base_model: Path) -> AsyncIterator[GatewayLoad]:
    """Clients of a platform whose one model may have two replicas, and has one."""
    async with served_platform(tmp_path, base_model, autoscaling=SCALING) as platform:
        yield GatewayLoad(platform)


async def test_a_changed_file_then_more_load_then_less(load: GatewayLoad) -> None:
    """One start serves all of it, because each replica takes most of a minute to start."""
    replaced = await change_the_model(load.platform, load)
    assert not replaced.wrong
    assert replaced.failed == replaced.cut == 0
    assert replaced.answered > 0
    rescaled = await scale_up_and_down(load.platform, load)
    assert not rescaled.bill.wrong
    assert rescaled.bill.failed == rescaled.bill.cut == 0
    assert rescaled.bill.answered > replaced.answered
    assert rescaled.drained > 0, "what was inside the replica that went came to its end"
