"""Books in full swing for the tests of billing that tamper with them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.billing.busy_books import BusyBooks
from tokenyard.storage.database import Database


@pytest.fixture
async def books(database: Database, redis: Redis, tmp_path: Path) -> AsyncIterator[BusyBooks]:
    async with BusyBooks(database, redis, tmp_path / "spool") as opened:
        await opened.fill()
        yield opened
