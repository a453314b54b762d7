"""A running gateway with one mock model server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from gateway_stack import GatewayStack, gateway_stack
from redis.asyncio import Redis


@pytest.fixture(scope="session")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """Run on the event loop that the gateway runs on."""
    return uvloop.EventLoopPolicy()


@pytest.fixture
async def gateway(redis: Redis, tmp_path: Path) -> AsyncIterator[GatewayStack]:
    async with gateway_stack(redis, tmp_path) as stack:
        yield stack
