"""Reads dated rate cards from YAML; refuses what is not exact."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from tokenyard.core.ids import PriceId
from tokenyard.core.money import InexactAmount, rate_from_dollars_per_million
from tokenyard.core.price import Price


class InvalidRateCard(ValueError):
    """A card that cannot be used; the message names the file and what is wrong."""


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class _FineTunedRates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    input: str
    cached_input: str
    output: str


class _ModelRates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    input: str
    cached_input: str
    output: str
    training: str
    fine_tuned: _FineTunedRates


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
    """Read every `*.yaml` in `folder`, oldest card first.

    Raises:
        InvalidRateCard: malformed, finer than a nano-dollar a token, or two cards alike.
    """
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
        file = msgspec.convert(_read(path), _CardFile)
        if file.currency != "USD":
            raise InvalidRateCard(f"currency {file.currency}: only USD is supported")
        prices = tuple(price for model in sorted(file.models) for price in _prices(file, model))
        return RateCard(file.version, _instant_ms(file.effective_from), prices, _digest(file, prices))
    except (msgspec.ValidationError, InexactAmount, InvalidRateCard, yaml.YAMLError) as error:
        raise InvalidRateCard(f"{path.name}: {error}") from error


def _read(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=_UniqueKeys)  # noqa: S506 - a base loader: it makes nothing but text


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
    training = _rate(model, "training", rates.training)

    def price(identity: str, source: _ModelRates | _FineTunedRates) -> Price:
        return Price(
            id=PriceId(identity),
            model=model,
            input=_rate(model, "input", source.input),
            cached_input=_rate(model, "cached_input", source.cached_input),
            output=_rate(model, "output", source.output),
            training=training,
        )

    return price(base, rates), price(f"{base}/fine-tuned", rates.fine_tuned)


def _rate(model: str, what: str, text: str) -> Any:
    try:
        rate = rate_from_dollars_per_million(text)
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
    return round(instant.timestamp() * 1000)


def _digest(file: _CardFile, prices: tuple[Price, ...]) -> str:
    content: Mapping[str, Any] = {
        "version": file.version,
        "effective_from_ms": _instant_ms(file.effective_from),
        "prices": [msgspec.to_builtins(price) for price in prices],
    }
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()
