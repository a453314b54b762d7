"""What the commands of tenants run against."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.finetune.control_plane import ControlPlane, running_control_plane


@pytest.fixture
async def plane(redis: Redis, tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with running_control_plane(redis, tmp_path) as running:
        yield running
