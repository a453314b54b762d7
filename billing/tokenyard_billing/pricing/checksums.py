"""Keeps used rate cards unchanged: the first use records a card's hash in SQL, and another hash is refused."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.storage.bulk import insert_new
from tokenyard.storage.database import Database
from tokenyard_billing.pricing.rate_cards import InvalidRateCard, RateCard
from tokenyard_billing.tables import RateCardSeal


class RateCardSeals:
    """Remembers which cards it has seen sealed, so that a steady stream of charges costs no query."""

    def __init__(self) -> None:
        self._sealed: set[str] = set()

    async def check(self, database: Database, cards: Iterable[RateCard]) -> None:
        """Compare the installed cards with what was used.

        Raises:
            InvalidRateCard: a card was edited after its first use.
        """
        async with database.reading() as session:
            await _compare(session, cards)

    async def use(self, session: AsyncSession, cards: Iterable[RateCard], at_ms: int) -> list[str]:
        """Seal `cards` in this transaction; return the versions to pass to `keep` once it is committed.

        Raises:
            InvalidRateCard: a card was edited after its first use.
        """
        fresh = {card.version: card for card in cards if card.version not in self._sealed}
        if fresh:
            rows = [
                {"version": card.version, "sha256": card.sha256, "first_used_at_ms": at_ms} for card in fresh.values()
            ]
            await insert_new(session, RateCardSeal, rows)
            await _compare(session, fresh.values())
        return list(fresh)

    def keep(self, versions: Iterable[str]) -> None:
        """Remember `versions` as sealed."""
        self._sealed.update(versions)


async def _compare(session: AsyncSession, cards: Iterable[RateCard]) -> None:
    sealed = dict((await session.execute(select(RateCardSeal.version, RateCardSeal.sha256))).all())
    for card in cards:
        if sealed.get(card.version, card.sha256) != card.sha256:
            raise InvalidRateCard(
                f"rate card {card.version} was edited after it was used; restore it and publish a new dated card"
            )
