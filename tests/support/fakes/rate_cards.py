"""Rate cards made to order, in every form in which they come."""

from pathlib import Path

import msgspec
import yaml

from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard_billing.pricing.publishing import publish
from tokenyard_billing.pricing.rate_cards import (
    FINE_TUNED,
    RateCard,
    StatedCard,
    StatedModelRates,
    StatedTunedRates,
    instant_text,
    load_rate_cards,
    read_rate_card,
)

SHIPPED = Path(__file__).parents[3] / "billing" / "prices"
SHIPPED_CARDS = tuple(load_rate_cards(SHIPPED).values())
SHIPPED_MODEL = "smollm2-135m-instruct"
HOUR, PINNED_HOUR, GB_MONTH = NanoDollars(300), NanoDollars(700), NanoDollars(900)


def with_hosting(card: RateCard) -> RateCard:
    """Return a card on which hours of fine-tunes, and what is stored, cost something."""
    prices = (
        msgspec.structs.replace(price, hosting=HOUR, pinned_hosting=PINNED_HOUR)
        if price.id.endswith(FINE_TUNED)
        else price
        for price in card.prices
    )
    return msgspec.structs.replace(card, prices=tuple(prices), storage=GB_MONTH)


HOSTING_CARDS = tuple(map(with_hosting, SHIPPED_CARDS))
"""The shipped cards, but for that."""


def stated(version: str, start_ms: int, *, output: str = "0.80", model: str = SHIPPED_MODEL) -> StatedCard:
    """A card with one model, whose rates differ from the shipped card's unless `output` is 0.40."""
    tuned = StatedTunedRates(input="0.15", cached_input="0.075", output="0.60")
    rates = StatedModelRates(input="0.10", cached_input="0.05", output=output, training="3.00", fine_tuned=tuned)
    return StatedCard(version=version, effective_from=instant_text(start_ms), currency="USD", models={model: rates})


def rate_card(version: str, start_ms: int, *, output: str = "0.80", model: str = SHIPPED_MODEL) -> RateCard:
    return read_rate_card(stated(version, start_ms, output=output, model=model))


def write_file(folder: Path, card: StatedCard) -> Path:
    """Write a card as a YAML file that is called by its version."""
    path = folder / f"{card.version}.yaml"
    path.write_text(yaml.safe_dump(msgspec.to_builtins(card)))
    return path


async def published(database: Database, *cards: RateCard, now_ms: int) -> None:
    """Publish cards at a moment, as an import does."""
    async with database.transaction() as session:
        await publish(session, {f"{card.version}.yaml": card for card in cards}, by="import", now_ms=now_ms)
