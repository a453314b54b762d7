"""One organization with money in a real Valkey, and an admission over it."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import BudgetTable, open_buckets
from tokenyard.limits.admission import RedisAdmission


@pytest.fixture
def budgets() -> BudgetTable:
    return BudgetTable()


@pytest.fixture
async def admission(redis: Redis, budgets: BudgetTable, tmp_path: Path) -> RedisAdmission:
    await open_buckets(redis)
    return RedisAdmission(redis, budgets.load, spool_folder=tmp_path / "spool", lease_ms=30_000, renewal_ms=5_000)
