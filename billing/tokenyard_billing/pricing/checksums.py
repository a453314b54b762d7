"""Keeps used rate cards unchanged: the first use records a card's checksum in SQL, and another one is refused."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.storage.bulk import insert_new
from tokenyard_billing.pricing.rate_cards import InvalidRateCard, RateCard
from tokenyard_billing.tables import RateCardChecksum


async def record_use(session: AsyncSession, cards: Iterable[RateCard], at_ms: int) -> None:
    """Record the checksum of each card that has none yet, and compare as `compare` does."""
    rows = [{"version": card.version, "sha256": card.sha256, "first_used_at_ms": at_ms} for card in cards]
    await insert_new(session, RateCardChecksum, rows)
    await compare(session, cards)


async def compare(session: AsyncSession, cards: Iterable[RateCard]) -> None:
    """Raise `InvalidRateCard` where one of `cards` was edited after its first use."""
    query = select(RateCardChecksum.version, RateCardChecksum.sha256)
    used = dict((await session.execute(query)).all())
    for card in cards:
        if used.get(card.version, card.sha256) != card.sha256:
            raise InvalidRateCard(
                f"rate card {card.version} was edited after it was used; restore it and publish a new dated card"
            )
