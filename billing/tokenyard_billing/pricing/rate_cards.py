"""Reads dated rate cards from YAML; refuses what is not exact."""

import hashlib
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from tokenyard.core.ids import PriceId
from tokenyard.core.money import InexactAmount, NanoDollars, rate_from_dollars_per_million
from tokenyard.core.price import Price


class InvalidRateCard(ValueError):
    """A card that cannot be used; the message names the file and what is wrong."""


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class _Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    input: str
    cached_input: str
    output: str


class _ModelRates(_Rates, frozen=True, forbid_unknown_fields=True):
    training: str
    fine_tuned: _Rates


class _CardFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: _Name
    effective_from: str
    currency: str
    models: dict[_Name, _ModelRates]


class RateCard(msgspec.Struct, frozen=True):
    """One card. `sha256` is of its rates, not of the file: comments may change, rates may not."""

    version: str
    effective_from_ms: int
    prices: tuple[Price, ...]
    sha256: str


def load_rate_cards(folder: Path) -> tuple[RateCard, ...]:
    """Read every `*.yaml` in `folder`, oldest card first; a wrong one, or two alike, raise `InvalidRateCard`."""
    cards = sorted((_load(path) for path in sorted(folder.glob("*.yaml"))), key=lambda card: card.effective_from_ms)
    if not cards:
        raise InvalidRateCard(f"there is no rate card in {folder}")
    for earlier, later in pairwise(cards):
        if earlier.effective_from_ms == later.effective_from_ms:
            raise InvalidRateCard(f"cards {earlier.version} and {later.version} start at the same moment")
    versions = [card.version for card in cards]
    if len(set(versions)) < len(versions):
        raise InvalidRateCard(f"two cards have the same version: {sorted(versions)}")
    return tuple(cards)


def _load(path: Path) -> RateCard:
    try:
        # The base loader keeps every scalar as text, so that 0.15 never passes through a float.
        text = yaml.load(path.read_text(), Loader=_UniqueKeys)  # noqa: S506 - it makes nothing but text
        file = msgspec.convert(text, _CardFile)
        if file.currency != "USD":
            raise InvalidRateCard(f"currency {file.currency}: only USD is supported")
        prices = tuple(price for model in sorted(file.models) for price in _prices(file, model))
        start_ms = _instant_ms(file.effective_from)
        return RateCard(file.version, start_ms, prices, _digest(file.version, start_ms, prices))
    except (msgspec.ValidationError, InexactAmount, InvalidRateCard, yaml.YAMLError) as error:
        raise InvalidRateCard(f"{path.name}: {error}") from error


class _UniqueKeys(yaml.BaseLoader):
    """YAML itself lets a later key silently win over an earlier one; a price must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(set(keys)) < len(keys):
            raise InvalidRateCard(f"a key stands twice: {sorted(keys)}")
        return super().construct_mapping(node, deep=deep)


def _prices(file: _CardFile, model: str) -> tuple[Price, Price]:
    rates = file.models[model]
    base = f"{file.version}/{model}"

    def rate(what: str, text: str) -> NanoDollars:
        try:
            found = rate_from_dollars_per_million(text)
        except InexactAmount as error:
            raise InvalidRateCard(f"{model}: {what}: {error}") from error
        if found < 0:
            raise InvalidRateCard(f"{model}: {what} is negative")
        return found

    def price(identity: str, source: _Rates) -> Price:
        return Price(
            id=PriceId(identity),
            model=model,
            input=rate("input", source.input),
            cached_input=rate("cached_input", source.cached_input),
            output=rate("output", source.output),
            training=rate("training", rates.training),
        )

    return price(base, rates), price(f"{base}/fine-tuned", rates.fine_tuned)


def _instant_ms(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRateCard(f"effective_from: {error}") from error
    if instant.tzinfo is None:
        raise InvalidRateCard("effective_from needs a time zone, such as 2026-01-01T00:00:00Z")
    return round(instant.timestamp() * 1000)


def _digest(version: str, effective_from_ms: int, prices: tuple[Price, ...]) -> str:
    builtins = [msgspec.to_builtins(price) for price in prices]  # mappings, whose keys are sorted
    rates = {"version": version, "effective_from_ms": effective_from_ms, "prices": builtins}
    return hashlib.sha256(msgspec.json.encode(rates, order="deterministic")).hexdigest()
