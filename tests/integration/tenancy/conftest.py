"""Tenancy over real SQL and a real Valkey."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from support.tenancy_stand import Tenancy, tenancy_stand
from tokenyard.storage.database import Database


@pytest.fixture
async def tenancy(database: Database, redis: Redis) -> AsyncIterator[Tenancy]:
    async with tenancy_stand(database, redis) as made:
        yield made
