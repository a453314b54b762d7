"""Books that are paid by the local Stripe."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from support.card_payments.books import PayingBooks, paying_books
from tokenyard.storage.database import Database


@pytest.fixture
async def books(database: Database, redis: Redis) -> AsyncIterator[PayingBooks]:
    async with paying_books(database, redis) as opened:
        yield opened
