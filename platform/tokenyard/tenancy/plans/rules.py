"""What a request may state of limits, models, scopes and addresses, and how that changes a row."""

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal, NamedTuple, Self

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.money import (
    NANO_PER_DOLLAR,
    InexactAmount,
    from_dollars,
    multiplier_from,
    multiplier_text,
    to_dollars,
)
from tokenyard.core.principal import KeyScope, Limits, LocalShare

MAX_PATTERNS = 50  # each that names a model has windows of its own, which a request must pass
MAX_NETWORKS = 50
MAX_MONTHLY = 1_000_000 * NANO_PER_DOLLAR
MAX_MODEL_LENGTH = 200
MODEL_PATTERN = r"^([A-Za-z0-9._:/-]+\*?|\*)$"
"""A model's name, or the beginning of names and a `*`."""
Rules = Mapping[str, Callable[[Any], object]]
"""By the name of a row's attribute: what makes the new value of the old one."""


class Expiry(NamedTuple):
    """When a key ends, from now on; None is never."""

    in_s: int | None


def _dollars(text: str) -> str:
    try:
        amount = from_dollars(text)
    except InexactAmount as error:
        raise ValueError(str(error)) from None
    if not 0 <= amount < 2**62:
        raise ValueError("must not be negative or too large")
    return text


def _monthly(text: str) -> str:
    if from_dollars(text) > MAX_MONTHLY:
        raise ValueError("must not be above a million dollars")
    return text


def _multiplier(text: str) -> str:
    try:
        return multiplier_text(multiplier_from(text))
    except InexactAmount as error:
        raise ValueError(str(error)) from None


def _network(text: str) -> str:
    network = ip_network(text)
    if network.version == 6 and network.network_address.ipv4_mapped is not None:
        raise ValueError("an IPv4 address must be written as one")
    return str(network)


def _in_order(percents: list[int]) -> list[int]:
    return sorted(set(percents))


def stated(body: BaseModel, *names: str) -> dict[str, Callable[[object], object]]:
    """Return those of the fields that a body names, as rules: they replace whatever stood there."""

    return {name: replaced_by(getattr(body, name)) for name in names if name in body.model_fields_set}


def replaced_by(value: object) -> Callable[[object], object]:
    """Return the rule that a value replaces whatever stood there."""
    return lambda _old: value


StatedDollars = Annotated[str, AfterValidator(_dollars)]
"""Dollars as text, such as `"25.00"`: not below 0, to the nano-dollar."""
MonthlyDollars = Annotated[str, AfterValidator(_dollars), AfterValidator(_monthly)]
"""What a plan asks for a month: at most a million dollars, so that sums of it stay within 64 bits."""
Weight = Annotated[int, Field(ge=1, le=1000)]
PinnedAdapters = Annotated[int, Field(ge=0, le=1000)]
"""How many of an organization's fine-tuned models stay in the memory of replicas: those that its aliases name, then
those that went live last."""
PriceMultiplier = Annotated[str, Field(max_length=32), AfterValidator(_multiplier)]
"""By what prices on the rate cards are multiplied, such as `"0.8"`: from 0 to 10, with up to four decimals."""
TierName = Literal["flex", "priority"]
ModelPattern = Annotated[str, Field(max_length=MAX_MODEL_LENGTH, pattern=MODEL_PATTERN)]
Models = Annotated[list[ModelPattern], Field(max_length=MAX_PATTERNS)]
Addresses = Annotated[list[Annotated[str, AfterValidator(_network)]], Field(min_length=1, max_length=MAX_NETWORKS)]
Percents = Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=10), AfterValidator(_in_order)]
_Limit = Annotated[int, Field(ge=0, lt=2**53)]


class StrictBody(BaseModel, extra="forbid", strict=True):
    """Unknown fields are refused, so that a caller sets nothing that is not its own to set."""


class RateLimitsView(StrictBody):
    """The limits that a model may have of its own; null is without limit."""

    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None
    requests_per_day: _Limit | None = None
    tokens_per_day: _Limit | None = None
    concurrency: _Limit | None = None

    @classmethod
    def of(cls, limits: Limits) -> Self:
        counts = msgspec.structs.asdict(limits)
        del counts["monthly_spend"]
        return cls(**counts)

    def applied_to(self, limits: Limits) -> Limits:
        """Return `limits` with the fields that a body names; the others stay."""
        return msgspec.structs.replace(limits, **self._changes())

    def _changes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


class LimitsView(RateLimitsView):
    """Limits as the API takes and shows them; null is without limit. The spend is dollars, such as `"25.00"`."""

    monthly_spend_dollars: StatedDollars | None = None

    @classmethod
    def of(cls, limits: Limits) -> Self:
        shown = super().of(limits)
        spend = limits.monthly_spend
        return shown.model_copy(update={"monthly_spend_dollars": None if spend is None else to_dollars(spend)})

    def _changes(self) -> dict[str, Any]:
        changes = super()._changes()
        if "monthly_spend_dollars" in changes:
            del changes["monthly_spend_dollars"]
            dollars = self.monthly_spend_dollars
            changes["monthly_spend"] = None if dollars is None else from_dollars(dollars)
        return changes


class LocalShareView(StrictBody):
    """What each gateway process may grant an organization while Redis is away.

    `percent` is of each limit on requests, tokens and concurrency. The requests may cost `spend_dollars` in all, until
    Redis knows of them and lets the organization go on: so a budget is never overdrawn by more than that for each
    process.
    """

    percent: Annotated[int, Field(ge=1, le=100)]
    spend_dollars: StatedDollars

    @classmethod
    def of(cls, share: LocalShare) -> Self:
        return cls(percent=share.percent, spend_dollars=to_dollars(share.spend))

    @staticmethod
    def share_of(view: "LocalShareView | None") -> LocalShare | None:
        return None if view is None else LocalShare(view.percent, from_dollars(view.spend_dollars))


class TrainingLimitsView(StrictBody):
    """What a plan says of fine-tuning; null is the installation's own bound, and for tokens none.

    `running` and `unfinished` are jobs of an organization at once, `tokens_per_day` of its jobs that started within a
    day.
    """

    running: Annotated[int, Field(ge=0, le=1000)] | None = None
    unfinished: Annotated[int, Field(ge=0, le=100_000)] | None = None
    tokens_per_day: _Limit | None = None

    def applied_to(self, old: Mapping[str, object]) -> dict[str, object]:
        """Return what is stored of the limits, with the fields that a body names; the others stay."""
        changed = {**old, **{name: getattr(self, name) for name in self.model_fields_set}}
        return {name: value for name, value in changed.items() if value is not None}


def _local_share_view(value: object) -> object:
    return LocalShareView.of(value) if isinstance(value, LocalShare) else value


class PlanTier(StrictBody):
    """What a plan grants to requests of a service tier. Without a multiplier of its own they cost what others do."""

    weight: Weight
    price_multiplier: PriceMultiplier | None = None


def _limits_view(value: object) -> object:
    return LimitsView.of(value) if isinstance(value, Limits) else value


def _rate_limits_view(value: object) -> object:
    return RateLimitsView.of(value) if isinstance(value, Limits) else value


LimitsField = Annotated[LimitsView, BeforeValidator(_limits_view)]
LocalShareField = Annotated[LocalShareView, BeforeValidator(_local_share_view)]
RateLimitsField = Annotated[RateLimitsView, BeforeValidator(_rate_limits_view)]


class OrganizationRules(StrictBody):
    """What an organization states in place of its plan; null leaves it to the plan, and percents to the usual ones."""

    weight: Weight | None = None
    models: Models | None = None
    alert_percents: Percents | None = None

    def rules(self) -> Rules:
        """Return what the body names, also where it is null."""
        return stated(self, "weight", "models", "alert_percents")


class ModelRules(StrictBody):
    """Which models a project or a key may use (null: all), and what limits some models have there.

    Models go by their names, or by the beginning of them and a `*`. A model whose limits are null has none any more.
    """

    models: Models | None = None
    model_limits: Annotated[dict[ModelPattern, RateLimitsView | None], Field(max_length=MAX_PATTERNS)] | None = None

    def rules(self) -> Rules:
        """Return what the body names, also where it is null."""
        found = stated(self, "models")
        return found if self.model_limits is None else {**found, "model_limits": self._applied_to}

    def _applied_to(self, old: Mapping[str, Limits]) -> dict[str, Limits]:
        limits = dict(old)
        for models, change in (self.model_limits or {}).items():
            changed = Limits() if change is None else change.applied_to(limits.pop(models, Limits()))
            limits.pop(models, None)
            if changed != Limits():
                limits[models] = changed
        if len(limits) > MAX_PATTERNS:
            raise InvalidRequest(f"Limits of at most {MAX_PATTERNS} models can be stated.", param="model_limits")
        return limits


class KeyRules(ModelRules):
    """What a key is for, and the addresses and networks from which it may be used; null is all, and everywhere."""

    scopes: Annotated[list[Annotated[KeyScope, Field(strict=False)]], Field(min_length=1, max_length=10)] | None = None
    addresses: Addresses | None = None

    def rules(self) -> Rules:
        return {**super().rules(), **stated(self, "scopes", "addresses")}
