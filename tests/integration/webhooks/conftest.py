"""Webhooks on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.webhooks.stand import WebhooksStand, webhooks_stand
from tokenyard.storage.database import Database


@pytest.fixture
async def stand(database: Database, tmp_path: Path) -> AsyncIterator[WebhooksStand]:
    async with webhooks_stand(database, tmp_path) as made:
        yield made
