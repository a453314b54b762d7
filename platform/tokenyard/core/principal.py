"""Who is calling, and how much they may use."""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property

import msgspec

from tokenyard.core.errors import InvalidRequest, PermissionDenied, QuotaExceeded
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.money import NanoDollars, Price, PriceStep, multiplied, multiplier_at
from tokenyard.core.usage import DEFAULT_TIER


class Limits(msgspec.Struct, frozen=True):
    """`None` means without limit. Windows roll: at no moment does any window hold more than the limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    monthly_spend: NanoDollars | None = None


class ScopedLimits(msgspec.Struct, frozen=True):
    """The limits of one scope; `scope` is `key`, `project` or `organization` and `id` says which."""

    scope: str
    id: str
    limits: Limits


class LocalShare(msgspec.Struct, frozen=True):
    """What each gateway process may grant an organization by itself while Redis is away (ADR 25).

    `percent` is of each limit on requests, tokens and concurrency; `spend` is what the requests may cost in all, in
    nano-dollars.
    """

    percent: int
    spend: NanoDollars


class ModelLimits(msgspec.Struct, frozen=True):
    """Limits that hold for some models only; `models` is a pattern that `names_model` reads."""

    models: str
    limits: ScopedLimits


class AllowedModels(msgspec.Struct, frozen=True):
    """The only models that a scope may use, as patterns; `scope` and `id` are as in `ScopedLimits`."""

    scope: str
    id: str
    patterns: tuple[str, ...]

    def allow(self, model: str) -> bool:
        return any(names_model(pattern, model) for pattern in self.patterns)


def names_model(pattern: str, model: str) -> bool:
    """Tell whether `pattern` names `model`: it is its name, or the beginning of it and a `*`."""
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern


class KeyScope(StrEnum):
    """What a tenant's key may be for. One that states none is for everything, and only such a key manages others."""

    INFERENCE = "inference"
    FILES = "files"
    FINE_TUNING = "fine_tuning"
    BILLING = "billing"


class Role(StrEnum):
    """What a key is for. An operator key belongs to no organization and reaches only `/admin` routes."""

    TENANT = "tenant"
    OPERATOR = "operator"


class Principal(msgspec.Struct, frozen=True, dict=True):
    """A tenant's authenticated key. `limits` go from the narrowest scope to the widest.

    `revision` is the organization's: it grows with every change that may make an older `Principal` of it wrong.
    `models` is empty where every model of the organization may be used, and `scopes` None where the key is for all.
    `local_share` is None where nothing is served while Redis is away.
    `blocked` says why the organization may use nothing that costs money, and is empty where it may.
    `tiers` are the weights of the service tiers that its plan grants. `prices` are the step in force and those to come.
    """

    organization: OrganizationId
    project: ProjectId
    key: ApiKeyId
    revision: int
    limits: tuple[ScopedLimits, ...] = ()
    weight: int = 1
    models: tuple[AllowedModels, ...] = ()
    model_limits: tuple[ModelLimits, ...] = ()
    scopes: frozenset[KeyScope] | None = None
    local_share: LocalShare | None = None
    tiers: Mapping[str, int] = {}
    prices: tuple[PriceStep, ...] = ()
    blocked: str = ""

    @cached_property
    def monthly_limits(self) -> dict[str, NanoDollars]:
        """What each scope that has such a limit may spend in a month, by its id."""
        spends = ((scope.id, scope.limits.monthly_spend) for scope in self.limits)
        return {scope: spend for scope, spend in spends if spend is not None}

    def who_denies(self, model: str) -> AllowedModels | None:
        """Return the narrowest scope that may not use `model`, or None where all of them may."""
        return next((allowed for allowed in self.models if not allowed.allow(model)), None)

    def check_not_blocked(self) -> None:
        """Raise `QuotaExceeded` where the organization may use nothing that costs money."""
        if self.blocked:
            raise QuotaExceeded(f"Your organization is blocked: {self.blocked}. Please check your billing details.")

    def check_model(self, model: str) -> None:
        """Raise `PermissionDenied` where a list of allowed models lacks `model`, which the organization has."""
        denied = self.who_denies(model)
        if denied is not None:
            whose = "This API key" if denied.scope == "key" else f"{denied.scope.title()} `{denied.id}`"
            message = f"{whose} does not have access to model `{model}`."
            raise PermissionDenied(message, code="model_not_found", param="model")

    def weight_of(self, tier: str) -> int:
        """Return the weight of a request of a service tier; one that its plan lacks raises `InvalidRequest`."""
        if tier == DEFAULT_TIER:
            return self.weight
        if tier not in self.tiers:
            message = f"The service tier '{tier}' is not part of your organization's plan."
            raise InvalidRequest(message, param="service_tier", code="unsupported_value")
        return self.tiers[tier]

    def price_of(self, listed: Price, tier: str, at_ms: int) -> Price:
        """Return what the caller pays in place of the price on the rate card."""
        return multiplied(listed, multiplier_at(self.prices, tier, at_ms))

    def using(self, model: str) -> "Principal":
        """Return the same caller with all limits that hold when it uses `model`."""
        own = tuple(each.limits for each in self.model_limits if names_model(each.models, model))
        return msgspec.structs.replace(self, limits=(*own, *self.limits)) if own else self


class Operator(msgspec.Struct, frozen=True):
    key: ApiKeyId
