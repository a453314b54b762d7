"""A Redis of a test's own, which it may kill, and a client of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import open_buckets
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.storage.redis import connect_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    (tmp_path / "redis").mkdir()
    server = Valkey(tmp_path / "redis", free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def client(server: Valkey) -> AsyncIterator[Redis]:
    client = connect_redis(server.url)
    await open_buckets(client)
    yield client
    await client.aclose()
