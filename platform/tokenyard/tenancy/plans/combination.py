"""How a plan, an organization, a project and a key combine into what one caller may do (ADR 19).

An organization's own statement replaces its plan's, field by field. Apart from that every scope holds by itself, so the
narrowest limit decides, and a model must be allowed by each scope that has a list. A permission for a fine-tuned model
is one more entry of its project's list (ADR 46).
"""

from collections.abc import Mapping, Sequence

import msgspec

from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.money import PriceStep
from tokenyard.core.principal import (
    AllowedModels,
    KeyScope,
    Limits,
    ModelLimits,
    Operator,
    Principal,
    Role,
    ScopedLimits,
)
from tokenyard.tenancy.keys import Credential
from tokenyard.tenancy.plans.prices import tier_terms
from tokenyard.tenancy.tables import ApiKeyRow, OrganizationRow, PlanRow, ProjectRow
from tokenyard.web.client_address import Networks

WEIGHT = 1
"""Of an organization that states none, without a plan."""
NO_LIMITS = Limits()


def effective_limits(own: Limits, plan: Limits) -> Limits:
    """Return the organization's own limits, and the plan's where it has none."""
    stated = {name: value for name, value in msgspec.structs.asdict(own).items() if value is not None}
    return msgspec.structs.replace(plan, **stated)


def effective_weight(own: int | None, plan: PlanRow | None) -> int:
    if own is not None:
        return own
    return WEIGHT if plan is None else plan.weight


def credential_of(
    key: ApiKeyRow,
    project: ProjectRow | None,
    organization: OrganizationRow | None,
    plan: PlanRow | None,
    prices: Sequence[PriceStep] = (),
    *,
    permitted: Sequence[str] = (),
) -> Credential | None:
    """Return who holds `key`, or None where it has ended.

    `prices` are the organization's, now and later; `permitted` are models that the project may use besides its list.
    """
    if key.revoked_at is not None:
        return None
    addresses = None if key.addresses is None else Networks(key.addresses)
    if key.role == Role.OPERATOR:
        return Credential(Operator(ApiKeyId(key.id)), key.expires_at, addresses)
    if project is None or organization is None or (project.archived_at or organization.archived_at) is not None:
        return None
    principal = Principal(
        organization=OrganizationId(organization.id),
        project=ProjectId(project.id),
        key=ApiKeyId(key.id),
        revision=organization.revision,
        limits=(
            ScopedLimits("key", key.id, key.limits),
            ScopedLimits("project", project.id, project.limits),
            ScopedLimits("organization", organization.id, _limits(organization, plan)),
        ),
        weight=effective_weight(organization.weight, plan),
        models=(
            *_allowed("key", key.id, key.models),
            *_allowed("project", project.id, None if project.models is None else [*project.models, *permitted]),
            *_allowed("organization", organization.id, _models(organization, plan)),
        ),
        model_limits=(*_model_limits(key.id, key.model_limits), *_model_limits(project.id, project.model_limits)),
        scopes=None if key.scopes is None else frozenset(map(KeyScope, key.scopes)),
        local_share=None if plan is None else plan.local_share,
        tiers={tier: terms.weight for tier, terms in tier_terms(plan).items()},
        prices=tuple(prices),
        blocked=organization.blocked_reason,
    )
    return Credential(principal, key.expires_at, addresses, None if plan is None else plan.id)


def _limits(organization: OrganizationRow, plan: PlanRow | None) -> Limits:
    return effective_limits(organization.limits, NO_LIMITS if plan is None else plan.limits)


def _models(organization: OrganizationRow, plan: PlanRow | None) -> list[str] | None:
    return plan.models if organization.models is None and plan is not None else organization.models


def _allowed(scope: str, identity: str, patterns: list[str] | None) -> tuple[AllowedModels, ...]:
    return () if patterns is None else (AllowedModels(scope, identity, tuple(patterns)),)


def _model_limits(owner: str, limits: Mapping[str, Limits]) -> tuple[ModelLimits, ...]:
    return tuple(
        ModelLimits(models, ScopedLimits("model", f"{owner}/{models}", each)) for models, each in limits.items()
    )
