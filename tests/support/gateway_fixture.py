"""A running gateway with one mock model server, on the event loop that gateways run on."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from redis.asyncio import Redis

from support.gateway_stack import GatewayStack, gateway_stack


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], uvloop.Loop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def gateway(redis: Redis, tmp_path: Path) -> AsyncIterator[GatewayStack]:
    async with gateway_stack(redis, tmp_path) as stack:
        yield stack
