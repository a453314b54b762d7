"""Plans as the API takes and shows them, and what holds for models in a project, in OpenAI's shapes."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field

from tokenyard.core.ids import PlanId
from tokenyard.core.money import from_dollars, to_dollars
from tokenyard.core.principal import Limits
from tokenyard.tenancy.plans.combination import WEIGHT
from tokenyard.tenancy.plans.rules import (
    LimitsField,
    LimitsView,
    LocalShareField,
    LocalShareView,
    Models,
    MonthlyDollars,
    PinnedAdapters,
    PlanTier,
    PriceMultiplier,
    RateLimitsView,
    Rules,
    StrictBody,
    TierName,
    TrainingLimitsView,
    Weight,
    replaced_by,
    stated,
)
from tokenyard.tenancy.views import RowView
from tokenyard.web.pages import Identified

_MONTHLY = ("monthly_fee", "monthly_minimum")
_STATED = ("name", "weight", "models", "price_multiplier", "pinned_adapters")
PlanName = Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class NewPlan(StrictBody):
    """`POST /admin/plans`; models go by their names, or by the beginning of them and a `*`, and null is all.

    `service_tiers` are those that requests may ask for, besides `default`. Without a `local_share` nothing is served
    while Redis is away. The fee is charged for each month beside what is used, and a month comes to at least the
    minimum; of a part of a month each is charged in proportion.
    """

    name: PlanName
    weight: Weight = WEIGHT
    limits: LimitsView = LimitsView()
    models: Models | None = None
    price_multiplier: PriceMultiplier = "1"
    service_tiers: Annotated[dict[TierName, PlanTier], Field(default_factory=dict)]
    local_share: LocalShareView | None = None
    pinned_adapters: PinnedAdapters = 0
    training: TrainingLimitsView = TrainingLimitsView()
    monthly_fee_dollars: MonthlyDollars = "0"
    monthly_minimum_dollars: MonthlyDollars = "0"

    def stated(self) -> Mapping[str, object]:
        """Return what the plan's row is to hold."""
        tiers = {name: tier.model_dump() for name, tier in self.service_tiers.items()}
        values = {name: getattr(self, name) for name in _STATED}
        share = LocalShareView.share_of(self.local_share)
        values |= {"limits": self.limits.applied_to(Limits()), "training": self.training.applied_to({})}
        values |= {name: from_dollars(getattr(self, f"{name}_dollars")) for name in _MONTHLY}
        return values | {"service_tiers": tiers, "local_share": share}


class PlanChanges(StrictBody):
    """`PATCH /admin/plans/{plan}`; absent changes nothing, nor does null, which for models is all of them.

    A `local_share` that is null ends. Of `service_tiers` those that are named change, and one that is null ends.
    Prices, fee and minimum change 15 minutes later.
    """

    name: PlanName | None = None
    weight: Weight | None = None
    limits: LimitsView | None = None
    models: Models | None = None
    price_multiplier: PriceMultiplier | None = None
    service_tiers: dict[TierName, PlanTier | None] | None = None
    local_share: LocalShareView | None = None
    pinned_adapters: PinnedAdapters | None = None
    training: TrainingLimitsView | None = None
    monthly_fee_dollars: MonthlyDollars | None = None
    monthly_minimum_dollars: MonthlyDollars | None = None

    def rules(self) -> Rules:
        """Return what the body names, but for name and limits."""
        given = [name for name in ("weight", "price_multiplier", "pinned_adapters") if getattr(self, name) is not None]
        rules: dict[str, Any] = stated(self, "models", *given)
        if "local_share" in self.model_fields_set:
            rules["local_share"] = replaced_by(LocalShareView.share_of(self.local_share))
        if self.training is not None:
            rules["training"] = self.training.applied_to
        rules |= {name: replaced_by(from_dollars(text)) for name, text in self._monthly()}
        return rules if self.service_tiers is None else {**rules, "service_tiers": self._applied_to}

    def _monthly(self) -> Iterator[tuple[str, str]]:
        for name in _MONTHLY:
            if (text := getattr(self, f"{name}_dollars")) is not None:
                yield name, text

    def _applied_to(self, old: Mapping[str, object]) -> dict[str, object]:
        tiers = dict(old)
        for name, tier in (self.service_tiers or {}).items():
            tiers.pop(name, None)
            if tier is not None:
                tiers[name] = tier.model_dump()
        return tiers


class PlanView(RowView):
    """What organizations on it have where they state nothing of their own.

    The multipliers, the fee and the minimum come into force at `prices_from_ms` (unix milliseconds).
    """

    id: PlanId
    object: Literal["plan"] = "plan"
    name: str
    weight: int
    limits: LimitsField
    models: list[str] | None
    price_multiplier: str
    service_tiers: dict[str, PlanTier]
    prices_from_ms: int
    local_share: LocalShareField | None
    pinned_adapters: int
    training: TrainingLimitsView
    monthly_fee_dollars: Annotated[str, BeforeValidator(to_dollars), Field(validation_alias="monthly_fee")]
    monthly_minimum_dollars: Annotated[str, BeforeValidator(to_dollars), Field(validation_alias="monthly_minimum")]
    created_at: int


class PlanDeleted(Identified):
    object: Literal["plan.deleted"] = "plan.deleted"
    deleted: bool = True


class ModelPermissions(BaseModel):
    """OpenAI's model permissions of a project, of which only lists of allowed models can be stated here."""

    object: Literal["project.model_permissions"] = "project.model_permissions"
    mode: Literal["allow_list"] = "allow_list"
    model_ids: list[str]


class NewModelPermissions(StrictBody):
    """`POST .../model_permissions`; models go by their names, or by the beginning of them and a `*`."""

    mode: Literal["allow_list"]
    model_ids: Models


class ModelPermissionsDeleted(BaseModel):
    object: Literal["project.model_permissions.deleted"] = "project.model_permissions.deleted"
    deleted: bool = True


UNLIMITED = 2**53 - 1
"""OpenAI's rate limits always have a number; this one says that there is no limit."""
_Number = Annotated[int, Field(ge=0, le=UNLIMITED)]


class ModelRateLimit(Identified):
    """OpenAI's rate limit of a project for a model, which is also its `id`."""

    object: Literal["project.rate_limit"] = "project.rate_limit"
    model: str
    max_requests_per_1_minute: int
    max_tokens_per_1_minute: int
    max_requests_per_1_day: int

    @classmethod
    def of(cls, model: str, limits: RateLimitsView) -> Self:
        def number(limit: int | None) -> int:
            return UNLIMITED if limit is None else limit

        return cls(
            id=model,
            model=model,
            max_requests_per_1_minute=number(limits.requests_per_minute),
            max_tokens_per_1_minute=number(limits.tokens_per_minute),
            max_requests_per_1_day=number(limits.requests_per_day),
        )


class ModelRateLimitChanges(StrictBody):
    """`POST .../rate_limits/{model}`; what is absent stays."""

    max_requests_per_1_minute: _Number | None = None
    max_tokens_per_1_minute: _Number | None = None
    max_requests_per_1_day: _Number | None = None

    def limits(self) -> RateLimitsView:
        """Return the change as a change of limits."""
        numbers = {
            "requests_per_minute": self.max_requests_per_1_minute,
            "tokens_per_minute": self.max_tokens_per_1_minute,
            "requests_per_day": self.max_requests_per_1_day,
        }
        given = {name: number for name, number in numbers.items() if number is not None}
        return RateLimitsView(**{name: None if number == UNLIMITED else number for name, number in given.items()})
