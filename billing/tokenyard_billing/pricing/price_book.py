"""Keeps a process's prices as SQL has them, and serves on from memory while SQL is down."""

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Self

from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.storage import change_feed
from tokenyard.storage.change_feed import Listener
from tokenyard.storage.database import Database
from tokenyard.storage.read_cache import DATABASE_DOWN
from tokenyard.storage.transactional_outbox import Handler
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.pricing.rate_cards import read_stored_card
from tokenyard_billing.tables import RateCardRow

_LOG = logging.getLogger(__name__)

TOPIC = "prices"
"""The outbox's topic of a published card, and the change feed's kind."""
RELOAD_S = 30.0
RETRY_S = 1.0
LOAD_LIMIT_S = 10.0


async def read_new_cards(session: AsyncSession, prices: PriceList) -> None:
    """Bring `prices` the cards that it does not know yet: cards are only ever added.

    Raises:
        InvalidRateCard: a card was changed in the database; `prices` stays as it is.
    """
    known = [card.version for card in prices.cards]
    query = select(RateCardRow.card, RateCardRow.sha256).where(RateCardRow.version.not_in(known))
    rows = (await session.execute(query)).all()
    if rows:
        prices.add([read_stored_card(card, sha256) for card, sha256 in rows])


class PriceBook:
    """`prices` for the length of a process. Used as `async with`: reads the cards, then follows what is published."""

    def __init__(self, database: Database) -> None:
        self.prices = PriceList()
        self._database = database
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Read the cards, or go on trying where the database is down: until then every look at a price is refused.

        Raises:
            InvalidRateCard: a card was changed in the database.
        """
        try:
            await self._read()
        except DATABASE_DOWN as error:
            _LOG.warning("the rate cards cannot be read yet: %r", error)
        self._task = asyncio.create_task(self._follow(), name="rate cards")
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def listeners(self) -> dict[str, Listener]:
        """Return what the change feed must call."""
        return {TOPIC: self._changed}

    async def _changed(self, _version: str | None) -> None:
        self._told.set()

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RELOAD_S if self.prices.cards else RETRY_S):
                    await self._told.wait()
            except TimeoutError:  # what a lost push would have told
                pass
            self._told.clear()
            try:
                await self._read()
            except Exception as error:  # the process serves on, and tries again
                _LOG.warning("the rate cards cannot be read, those in memory serve on: %r", error)

    async def _read(self) -> None:
        async with asyncio.timeout(LOAD_LIMIT_S), self._database.reading() as session:
            await read_new_cards(session, self.prices)


def price_carrier(redis: Redis) -> Handler:
    """Return the outbox's handler: it tells every process which card was published."""

    async def carry(payloads: Sequence[str]) -> None:
        for version in payloads:
            await change_feed.publish(redis, TOPIC, json.loads(version))

    return carry
