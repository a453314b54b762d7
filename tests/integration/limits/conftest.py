"""One organization with money in a real Valkey, and an admission over it."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import BudgetTable, open_buckets
from tokenyard.limits.admission import Admission


@pytest.fixture
def budgets() -> BudgetTable:
    return BudgetTable()


@pytest.fixture
async def admission(redis: Redis, budgets: BudgetTable, tmp_path: Path) -> Admission:
    await open_buckets(redis)
    return Admission(redis, budgets, spool_folder=tmp_path / "spool", lease_ms=30_000, renewal_ms=5_000)
