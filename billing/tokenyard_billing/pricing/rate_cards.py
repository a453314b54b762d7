"""What a rate card is, how one is read (YAML file, request, SQL), and what makes it invalid. Nothing inexact passes."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from tokenyard.core.ids import PriceId
from tokenyard.core.money import (
    NANO_PER_DOLLAR,
    STORAGE,
    InexactAmount,
    NanoDollars,
    Price,
    from_dollars,
    rate_from_dollars_per_million,
)


class InvalidRateCard(ValueError):
    """A card that cannot be used; the message names the card and what is wrong."""


class RateCardConflict(InvalidRateCard):
    """Another card has this version or this start."""


FINE_TUNED = "/fine-tuned"
"""The end of the id of a price for fine-tunes."""
# They keep holds, charges and their sums within 64 bits.
MAX_RATE = NanoDollars(NANO_PER_DOLLAR)  # for a token
MAX_HOUR_RATE = NanoDollars(1_000 * NANO_PER_DOLLAR)
MAX_MONTH_RATE = MAX_HOUR_RATE
_YEAR_9999_MS = 253_370_764_800_000

# No control characters: PostgreSQL's texts hold no zero byte.
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class StatedRates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars for a million tokens, as text: no amount ever passes through a float."""

    input: str
    cached_input: str
    output: str


class StatedTunedRates(StatedRates, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of the fine-tunes over a model. The last two are dollars for each hour that one is live.

    Hosting is free where nothing is stated; one that a plan keeps in memory costs the same where it has no rate.
    """

    hosting_hour: str | None = None
    pinned_hosting_hour: str | None = None


class StatedModelRates(StatedRates, frozen=True, forbid_unknown_fields=True):
    """A model that cannot be fine-tuned states neither of the last two."""

    training: str | None = None
    fine_tuned: StatedTunedRates | None = None


class StatedCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A card as people write it, in a YAML file or a request. `effective_from`: ISO 8601 with its time zone.

    `storage_gb_month` is dollars for a gigabyte that is kept for a month of 720 hours; without it storage is free.
    """

    version: _Name
    effective_from: str
    currency: str
    models: dict[_Name, StatedModelRates]
    storage_gb_month: str | None = None


class RateCard(msgspec.Struct, frozen=True, omit_defaults=True):
    """One card. Comments and spelling of the file are not part of it."""

    version: str
    effective_from_ms: int
    prices: tuple[Price, ...]
    storage: NanoDollars = NanoDollars(0)

    @property
    def canonical(self) -> bytes:
        """The card as JSON with sorted keys: what SQL keeps, and what the checksum is of."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def storage_price(self) -> Price:
        """The price of a gigabyte that is kept for a month."""
        free = NanoDollars(0)
        return Price(PriceId(f"{self.version}/{STORAGE}"), STORAGE, free, free, free, free, storage=self.storage)

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
    if STORAGE in stated.models:
        raise InvalidRateCard(f"no model can be called {STORAGE!r}: the price of what is stored is")
    storage = _month_rate(stated.storage_gb_month or "0")
    return RateCard(stated.version, _instant_ms(stated.effective_from), prices, storage)


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
        content = yaml.load(path.read_text(), Loader=_UniqueKeys)  # noqa: S506 - it makes nothing but text
        return stated_card(_with_classes_spread(content))
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


def _with_classes_spread(content: object) -> object:
    """Return a file's content with the rates of a price class for each model that names one of the file's `classes`.

    So a card is whole, whatever its file shares, and a model changes its class only by another dated card.
    """
    if not isinstance(content, dict) or "classes" not in content:
        return content
    classes, models = content["classes"], content.get("models")
    if not isinstance(classes, dict) or not isinstance(models, dict):
        raise InvalidRateCard("`classes` and `models` must be rates by name")
    for model, stated in models.items():
        if isinstance(stated, str) and stated not in classes:
            raise InvalidRateCard(f"{model}: there is no price class {stated!r}: {', '.join(classes) or 'none'}")
    spread = {model: classes[stated] if isinstance(stated, str) else stated for model, stated in models.items()}
    return {**{name: value for name, value in content.items() if name != "classes"}, "models": spread}


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
    own = _price(base, model, rates, training=rates.training or "0")
    if rates.fine_tuned is None:
        return (own,)
    return own, _price(f"{base}{FINE_TUNED}", model, rates.fine_tuned, training=rates.training or "0")


def _price(identity: str, model: str, rates: StatedRates, *, training: str) -> Price:
    hosting, pinned_hosting = "0", None
    if isinstance(rates, StatedTunedRates):
        hosting, pinned_hosting = rates.hosting_hour or "0", rates.pinned_hosting_hour
    return Price(
        id=PriceId(identity),
        model=model,
        input=_token_rate(model, "input", rates.input),
        cached_input=_token_rate(model, "cached_input", rates.cached_input),
        output=_token_rate(model, "output", rates.output),
        training=_token_rate(model, "training", training),
        hosting=_hour_rate(model, "hosting_hour", hosting),
        pinned_hosting=_hour_rate(model, "pinned_hosting_hour", hosting if pinned_hosting is None else pinned_hosting),
    )


def _token_rate(model: str, what: str, text: str) -> NanoDollars:
    rate = _rate(model, what, text, rate_from_dollars_per_million)
    if rate > MAX_RATE:
        raise InvalidRateCard(f"{model}: {what} is above a dollar a token")
    return rate


def _hour_rate(model: str, what: str, text: str) -> NanoDollars:
    rate = _rate(model, what, text, from_dollars)
    if rate > MAX_HOUR_RATE:
        raise InvalidRateCard(f"{model}: {what} is above a thousand dollars an hour")
    return rate


def _month_rate(text: str) -> NanoDollars:
    rate = _rate(STORAGE, "storage_gb_month", text, from_dollars)
    if rate > MAX_MONTH_RATE:
        raise InvalidRateCard(f"{STORAGE}: storage_gb_month is above a thousand dollars")
    return rate


def _rate(model: str, what: str, text: str, read: Callable[[str], NanoDollars]) -> NanoDollars:
    try:
        rate = read(text)
    except InexactAmount as error:
        raise InvalidRateCard(f"{model}: {what}: {error}") from error
    if rate < 0:
        raise InvalidRateCard(f"{model}: {what} is negative")
    return rate


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
