"""The published rate cards, and publishing one more. They belong to no organization."""

from collections.abc import Sequence

from sqlalchemy import select

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard_billing.pricing.publishing import publish
from tokenyard_billing.pricing.rate_cards import RateCard
from tokenyard_billing.tables import RateCardRow

API = "api"


class RateCardOperatorStore:
    def __init__(self, database: Database, outbox: TransactionalOutbox, clock: Clock) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock

    async def cards(self, *, after: str | None, limit: int) -> Sequence[RateCardRow]:
        """Return at most `limit` cards, the last to start first; an unknown `after` raises `InvalidRequest`."""
        async with self._database.reading() as session:
            last = None if after is None else await session.get(RateCardRow, after)
            if last is None and after is not None:
                raise InvalidRequest(f"No such rate card: {after}", param="after")
            query = select(RateCardRow)
            part = part_of_list(query, RateCardRow.effective_from_ms, RateCardRow.version, after=last, limit=limit)
            return (await session.scalars(part)).all()

    async def card(self, version: str) -> RateCardRow:
        async with self._database.reading() as session:
            found = await session.get(RateCardRow, version)
        if found is None:
            raise NotFound(f"No such rate card: {version}")
        return found

    async def publish(self, card: RateCard, *, actor: str) -> RateCardRow:
        """Publish `card` and tell every process; one that is published already is returned as it stands.

        Raises:
            RateCardConflict: another card has its version or its start.
            InvalidRateCard: it starts too soon.
        """
        async with self._database.transaction() as session:
            messages = await publish(session, {API: card}, by=actor, now_ms=self._clock.now_ms())
        await self._outbox.try_to_carry(messages)
        return await self.card(card.version)
