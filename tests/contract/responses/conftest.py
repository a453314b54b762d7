"""A gateway that keeps answers, on the event loop that gateways run on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.answers_stand import AnswersStand, answers_stand
from support.gateway_fixture import pytest_asyncio_loop_factories
from tokenyard.storage.database import Database

__all__ = ["pytest_asyncio_loop_factories"]


@pytest.fixture
async def stand(redis: Redis, database: Database, tmp_path: Path) -> AsyncIterator[AnswersStand]:
    async with answers_stand(redis, database, tmp_path) as opened:
        yield opened
