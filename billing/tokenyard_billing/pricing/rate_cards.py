"""What a rate card is, how one is read (YAML file, request, SQL), and what makes it invalid. Nothing inexact passes."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from tokenyard.core.ids import PriceId
from tokenyard.core.money import NANO_PER_DOLLAR, InexactAmount, NanoDollars, Price, rate_from_dollars_per_million


class InvalidRateCard(ValueError):
    """A card that cannot be used; the message names the card and what is wrong."""


class RateCardConflict(InvalidRateCard):
    """Another card has this version or this start."""


FINE_TUNED = "/fine-tuned"
"""The end of the id of a price for fine-tunes."""
MAX_RATE = NanoDollars(NANO_PER_DOLLAR)  # for a token: keeps holds, charges and their sums within 64 bits
_YEAR_9999_MS = 253_370_764_800_000

# No control characters: PostgreSQL's texts hold no zero byte.
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class StatedRates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars for a million tokens, as text: no amount ever passes through a float."""

    input: str
    cached_input: str
    output: str


class StatedModelRates(StatedRates, frozen=True, forbid_unknown_fields=True):
    """A model that cannot be fine-tuned states neither of the last two."""

    training: str | None = None
    fine_tuned: StatedRates | None = None


class StatedCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A card as people write it, in a YAML file or a request. `effective_from`: ISO 8601 with its time zone."""

    version: _Name
    effective_from: str
    currency: str
    models: dict[_Name, StatedModelRates]


class RateCard(msgspec.Struct, frozen=True):
    """One card. Comments and spelling of the file are not part of it."""

    version: str
    effective_from_ms: int
    prices: tuple[Price, ...]

    @property
    def canonical(self) -> bytes:
        """The card as JSON with sorted keys: what SQL keeps, and what the checksum is of."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.canonical).hexdigest()

    @property
    def starts(self) -> str:
        """The moment from which it is in force, in ISO 8601."""
        return instant_text(self.effective_from_ms)


_DECODER: msgspec.json.Decoder[RateCard] = msgspec.json.Decoder(RateCard)


def instant_text(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def read_rate_card(stated: StatedCard) -> RateCard:
    """Return the card that `stated` describes, or raise `InvalidRateCard`."""
    if stated.currency != "USD":
        raise InvalidRateCard(f"currency {stated.currency}: only USD is supported")
    prices = tuple(price for model in sorted(stated.models) for price in _prices(stated, model))
    if len({price.id for price in prices}) < len(prices):
        raise InvalidRateCard("a model's name ends in /fine-tuned")
    return RateCard(stated.version, _instant_ms(stated.effective_from), prices)


def stated_card(content: object) -> StatedCard:
    """Return what was read from a file or a request as a card; another shape raises `InvalidRateCard`."""
    try:
        return msgspec.convert(content, StatedCard)
    except msgspec.ValidationError as error:
        raise InvalidRateCard(str(error)) from error


def read_canonical(canonical: str) -> RateCard:
    return _DECODER.decode(canonical)


def read_stored_card(canonical: str, sha256: str) -> RateCard:
    """Return a card as SQL keeps it; one that does not match its checksum raises `InvalidRateCard`."""
    try:
        card = read_canonical(canonical)
    except msgspec.MsgspecError as error:
        raise InvalidRateCard(f"a rate card in the database cannot be read: {error}") from error
    if card.sha256 != sha256:
        raise InvalidRateCard(f"rate card {card.version} was changed in the database: its checksum differs")
    return card


def read_card_file(path: Path) -> StatedCard:
    """Read one YAML file; `InvalidRateCard` names it."""
    try:
        # The base loader keeps every scalar as text, so that 0.15 never passes through a float.
        return stated_card(yaml.load(path.read_text(), Loader=_UniqueKeys))  # noqa: S506 - it makes nothing but text
    except (InvalidRateCard, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRateCard(f"{path.name}: {error}") from error


def load_rate_cards(folder: Path) -> Mapping[str, RateCard]:
    """Read every `*.yaml` in `folder`, oldest card first, by the file's name; `InvalidRateCard` names the file."""
    cards: dict[str, RateCard] = {}
    for path in sorted(folder.glob("*.yaml")):
        stated = read_card_file(path)
        try:
            cards[path.name] = read_rate_card(stated)
        except InvalidRateCard as error:
            raise InvalidRateCard(f"{path.name}: {error}") from error
    return dict(sorted(cards.items(), key=lambda item: item[1].effective_from_ms))


class _UniqueKeys(yaml.BaseLoader):
    """YAML itself lets a later key silently win over an earlier one; a price must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(set(keys)) < len(keys):
            raise InvalidRateCard(f"a key stands twice: {sorted(keys)}")
        return super().construct_mapping(node, deep=deep)


def _prices(stated: StatedCard, model: str) -> tuple[Price, ...]:
    rates = stated.models[model]
    base = f"{stated.version}/{model}"
    if (rates.training is None) is not (rates.fine_tuned is None):
        raise InvalidRateCard(f"{model}: training and fine_tuned go together")

    def rate(what: str, text: str) -> NanoDollars:
        try:
            found = rate_from_dollars_per_million(text)
        except InexactAmount as error:
            raise InvalidRateCard(f"{model}: {what}: {error}") from error
        if found < 0:
            raise InvalidRateCard(f"{model}: {what} is negative")
        if found > MAX_RATE:
            raise InvalidRateCard(f"{model}: {what} is above a dollar a token")
        return found

    def price(identity: str, source: StatedRates) -> Price:
        return Price(
            id=PriceId(identity),
            model=model,
            input=rate("input", source.input),
            cached_input=rate("cached_input", source.cached_input),
            output=rate("output", source.output),
            training=rate("training", rates.training or "0"),
        )

    tuned = () if rates.fine_tuned is None else (price(f"{base}{FINE_TUNED}", rates.fine_tuned),)
    return price(base, rates), *tuned


def _instant_ms(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRateCard(f"effective_from: {error}") from error
    if instant.tzinfo is None:
        raise InvalidRateCard("effective_from needs a time zone, such as 2026-01-01T00:00:00Z")
    at_ms = round(instant.timestamp() * 1000)
    if not 0 <= at_ms < _YEAR_9999_MS:
        raise InvalidRateCard(f"effective_from: {text} is no date of ours")
    return at_ms
