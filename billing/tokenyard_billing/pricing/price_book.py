"""Keeps a process's prices as SQL has them, and serves on from memory while SQL is down."""

import json
from collections.abc import Sequence
from typing import Self

from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.storage import change_feed
from tokenyard.storage.change_feed import PublishedReader
from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import Handler
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.pricing.rate_cards import read_stored_card
from tokenyard_billing.tables import RateCardRow

TOPIC = "prices"
"""The outbox's topic of a published card, and the change feed's kind."""
RELOAD_S = 30.0
RETRY_S = 1.0


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
    """`prices` for the length of a process. Used as `async with`: reads the cards, then follows what is published.

    Where the database is down it goes on trying: until then every look at a price is refused. A card that was changed
    in the database raises `InvalidRateCard`.
    """

    def __init__(self, database: Database) -> None:
        self.prices = PriceList()
        self._database = database
        self._reader = PublishedReader(TOPIC, self._read, lambda: RELOAD_S if self.prices.cards else RETRY_S)
        self.listeners = self._reader.listeners

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._reader.__aexit__(*raised)

    async def _read(self) -> None:
        async with self._database.reading() as session:
            await read_new_cards(session, self.prices)


def price_carrier(redis: Redis) -> Handler:
    """Return the outbox's handler: it tells every process which card was published."""

    async def carry(payloads: Sequence[str]) -> None:
        for version in payloads:
            await change_feed.publish(redis, TOPIC, json.loads(version))

    return carry
