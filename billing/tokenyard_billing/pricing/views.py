"""Rate cards as the API takes and shows them: in the shape of their YAML files."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from tokenyard.core.ids import PriceId
from tokenyard.core.money import Price, to_dollars
from tokenyard.web.pages import Identified
from tokenyard_billing.pricing.rate_cards import (
    FINE_TUNED,
    RateCard,
    instant_text,
    read_canonical,
    read_rate_card,
    stated_card,
)
from tokenyard_billing.views import View, of

Name = Annotated[str, Field(min_length=1, max_length=64)]
Rate = Annotated[str, Field(max_length=32, description="Dollars for a million tokens, such as 0.15.")]

HourRate = Annotated[str, Field(max_length=32, description="Dollars for an hour, such as 0.02.")]

MonthRate = Annotated[
    str, Field(max_length=32, description="Dollars for a gigabyte that is kept for a month of 720 hours, such as 0.03.")
]


class Rates(BaseModel, extra="forbid"):
    input: Rate
    cached_input: Rate
    output: Rate


class TunedRates(Rates):
    """The rates of fine-tunes. Those of hosting are dollars for each hour that one is live; without any it is free,
    and the second is for one that a plan keeps in memory.
    """

    hosting_hour: HourRate | None = None
    pinned_hosting_hour: HourRate | None = None


class ModelRates(Rates):
    """The rates of a base model and of the fine-tunes over it. `training`: for tokens x epochs.

    The last two are null for a model that cannot be fine-tuned.
    """

    training: Rate | None = None
    fine_tuned: TunedRates | None = None


class NewRateCard(BaseModel, extra="forbid"):
    """`POST /admin/rate_cards`."""

    version: Name
    effective_from: Annotated[str, Field(max_length=64, description="ISO 8601 with its time zone.")]
    currency: str
    models: Annotated[dict[Name, ModelRates], Field(min_length=1)]
    storage_gb_month: MonthRate | None = None

    def card(self) -> RateCard:
        """Return the card; one that cannot be used raises `InvalidRateCard`."""
        return read_rate_card(stated_card(self.model_dump()))


class RateCardHead(View, Identified):
    """A published card without its rates; `id` is its version."""

    id: Annotated[str, of("version")]
    object: Literal["rate_card"] = "rate_card"
    version: str
    effective_from: Annotated[str, BeforeValidator(instant_text), of("effective_from_ms")]
    effective_from_ms: int
    currency: Literal["USD"] = "USD"
    sha256: str
    published_at_ms: int
    published_by: str
    source: str


def _models(canonical: str) -> dict[str, object]:
    models: dict[str, object] = {}
    prices = {price.id: price for price in read_canonical(canonical).prices}
    for base in prices.values():
        tuned = prices.get(PriceId(f"{base.id}{FINE_TUNED}"))
        if tuned is not None:
            models[base.model] = {
                **_rates(base),
                "training": _per_million(base.training),
                "fine_tuned": {**_rates(tuned), **_hour_rates(tuned)},
            }
        elif not base.id.endswith(FINE_TUNED):
            models[base.model] = _rates(base)
    return models


def _rates(price: Price) -> dict[str, str]:
    return {name: _per_million(getattr(price, name)) for name in ("input", "cached_input", "output")}


def _hour_rates(price: Price) -> dict[str, str]:
    if not price.hosting and not price.pinned_hosting:
        return {}
    return {"hosting_hour": to_dollars(price.hosting), "pinned_hosting_hour": to_dollars(price.pinned_hosting)}


def _per_million(rate: int) -> str:
    return to_dollars(rate * 1_000_000)


def _storage(canonical: str) -> str | None:
    storage = read_canonical(canonical).storage
    return to_dollars(storage) if storage else None


class RateCardView(RateCardHead):
    """A whole card."""

    models: Annotated[dict[str, ModelRates], BeforeValidator(_models), of("card")]
    storage_gb_month: Annotated[MonthRate | None, BeforeValidator(_storage), of("card")]
