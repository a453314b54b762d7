"""A gateway that sells what another company's server answers, on the event loop that gateways run on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.elsewhere_stack import ElsewhereStack, elsewhere_stack
from support.gateway_fixture import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories", "stack"]


@pytest.fixture
async def stack(redis: Redis, tmp_path: Path) -> AsyncIterator[ElsewhereStack]:
    async with elsewhere_stack(redis, tmp_path) as opened:
        yield opened
