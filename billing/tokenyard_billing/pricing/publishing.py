"""Publishes rate cards: which may still come, and how they reach SQL. None is ever changed or withdrawn."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.money import PRICE_LEAD_MS
from tokenyard.storage import bulk
from tokenyard.storage.database import Database, advisory_lock
from tokenyard.storage.transactional_outbox import OutboxMessage, write_message
from tokenyard_billing.pricing.fee_prices import FEE_PRICES
from tokenyard_billing.pricing.price_book import TOPIC
from tokenyard_billing.pricing.rate_cards import InvalidRateCard, RateCard, RateCardConflict, load_rate_cards
from tokenyard_billing.tables import RateCardRow, UsedCardChecksum

IMPORTER = "import"


async def publish(session: AsyncSession, cards: Mapping[str, RateCard], *, by: str, now_ms: int) -> list[OutboxMessage]:
    """Write, in the caller's transaction, those of `cards` (by their source) that are not published yet.

    Where no card is in force yet, nothing was ever rated, so they may start at any time.

    Raises:
        RateCardConflict: a published card has the version with other rates, or the start, or ids of prices in common.
        InvalidRateCard: a card would start sooner than `PRICE_LEAD_MS` from now, or has a model called like a multiple.
    """
    await advisory_lock(session, "rate cards")
    columns = RateCardRow.version, RateCardRow.sha256, RateCardRow.effective_from_ms
    published = {version: (sha256, start_ms) for version, sha256, start_ms in await session.execute(select(*columns))}
    rated = any(start_ms <= now_ms for _, start_ms in published.values())
    earliest_ms = now_ms + PRICE_LEAD_MS if rated else 0
    messages: list[OutboxMessage] = []
    for source, card in cards.items():
        if card.version in published:
            _check_unchanged(card, published[card.version][0])
            continue
        _check_names(card)
        _check_version(card, published)
        _check_start(card, {start_ms: version for version, (_, start_ms) in published.items()}, earliest_ms)
        published[card.version] = card.sha256, card.effective_from_ms
        await bulk.insert(session, RateCardRow, [_row(card, by=by, source=source, now_ms=now_ms)])
        messages.append(await write_message(session, TOPIC, json.dumps(card.version).encode(), now_ms))
    return messages


async def import_rate_cards(database: Database, folder: Path, now_ms: int) -> None:
    """Publish the cards of `folder` that the database lacks; a file whose card is there is needed no more.

    Raises:
        InvalidRateCard: a file cannot be used, a card cannot be published, or there is no card at all.
    """
    files = load_rate_cards(folder)
    async with database.transaction() as session:
        await _check_used(session, files, folder)
        await publish(session, files, by=IMPORTER, now_ms=now_ms)
        if await session.scalar(select(RateCardRow.version).limit(1)) is None:
            raise InvalidRateCard(f"there is no rate card in {folder}, and none in the database")


async def _check_used(session: AsyncSession, files: Mapping[str, RateCard], folder: Path) -> None:
    """Make sure that the cards of which only a checksum was kept are there whole, now or after this import."""
    whole = {card.version: card.sha256 for card in files.values()}
    query = select(UsedCardChecksum.version, UsedCardChecksum.sha256)
    lacking = query.where(UsedCardChecksum.version.not_in(select(RateCardRow.version)))
    for version, sha256 in await session.execute(lacking):
        if version not in whole:
            raise InvalidRateCard(
                f"rate card {version} was used and the database has only its checksum: put its file back into {folder}"
            )
        if whole[version] != sha256:
            raise InvalidRateCard(f"rate card {version} was edited after it was used: restore its file in {folder}")


def _check_unchanged(card: RateCard, sha256: str) -> None:
    if card.sha256 != sha256:
        raise RateCardConflict(
            f"rate card {card.version} was published with other rates or another start; published cards never change:"
            " publish a new one with a version and a start of its own"
        )


def _check_names(card: RateCard) -> None:
    """Refuse a price whose id reads like another's times a multiplier."""
    for price in card.prices:
        if re.search(r"@[0-9.]+$", price.id):
            raise InvalidRateCard(
                f"rate card {card.version}: the model {price.model} is called like a multiplied price"
            )


def _check_version(card: RateCard, taken: Iterable[str]) -> None:
    """Refuse a version that goes on where another ends: a price's id is `<version>/<model>`, and models hold `/`.

    None begins as the prices of fees do.
    """
    if card.version.startswith(FEE_PRICES):
        raise InvalidRateCard(f"rate card {card.version}: no version begins with {FEE_PRICES}")
    for other in taken:
        if f"{card.version}/".startswith(f"{other}/") or f"{other}/".startswith(f"{card.version}/"):
            raise RateCardConflict(f"rate cards {other} and {card.version} could give two prices the same id")


def _check_start(card: RateCard, taken: Mapping[int, str], earliest_ms: int) -> None:
    if other := taken.get(card.effective_from_ms):
        raise RateCardConflict(f"rate cards {other} and {card.version} start at the same moment, {card.starts}")
    if card.effective_from_ms < earliest_ms:
        raise InvalidRateCard(
            f"rate card {card.version} starts {card.starts}; a new card must start at least"
            f" {PRICE_LEAD_MS // 60_000} minutes from now, so that nothing already rated changes its price and every"
            " process knows it before it is in force"
        )


def _row(card: RateCard, *, by: str, source: str, now_ms: int) -> dict[str, object]:
    return {
        "version": card.version,
        "effective_from_ms": card.effective_from_ms,
        "card": card.canonical.decode(),
        "sha256": card.sha256,
        "published_at_ms": now_ms,
        "published_by": by,
        "source": source,
    }
