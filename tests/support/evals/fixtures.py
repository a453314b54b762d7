"""Evals with and without HTTP, on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.evals.stand import EvalClients, EvalsStand
from tokenyard.storage.database import Database


@pytest.fixture
def evals(database: Database, tmp_path: Path) -> EvalsStand:
    return EvalsStand(database, tmp_path)


@pytest.fixture
async def clients(evals: EvalsStand) -> AsyncIterator[EvalClients]:
    async with evals.served() as served:
        yield served
