"""How plan, organization, project and key combine: the narrowest decides, an own statement replaces the plan's."""

from contextlib import nullcontext

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.errors import InvalidRequest, PermissionDenied
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import KeyScope, Limits, Principal, names_model
from tokenyard.tenancy.plans.combination import credential_of, effective_limits
from tokenyard.tenancy.tables import ApiKeyRow, OrganizationRow, PlanRow, ProjectRow

NAMES = ("small", "large", "ft:small:acme:a:1", "ft:small:acme:b:2", "ft:large:umbra:c:3")
PATTERNS = (*NAMES, "*", "ft:*", "ft:small:*", "s*")
FIELDS = Limits.__struct_fields__

amounts = st.none() | st.integers(0, 9)
limits = st.builds(Limits, *[amounts] * 5, amounts.map(lambda amount: None if amount is None else NanoDollars(amount)))
windows = st.builds(Limits, *[amounts] * 5).filter(lambda found: found != Limits())
lists = st.none() | st.lists(st.sampled_from(PATTERNS), max_size=3)
of_models = st.dictionaries(st.sampled_from(PATTERNS), windows, max_size=3)
tiers = st.dictionaries(
    st.sampled_from(["flex", "priority"]),
    st.fixed_dictionaries({"weight": st.integers(1, 9), "price_multiplier": st.none()}),
)
plans = st.none() | st.builds(
    PlanRow,
    id=st.just("plan_1"),
    name=st.just("p"),
    weight=st.integers(1, 9),
    limits=limits,
    models=lists,
    service_tiers=tiers,
)
organizations = st.builds(
    OrganizationRow,
    id=st.just("org_1"),
    revision=st.just(1),
    weight=st.none() | st.integers(1, 9),
    limits=limits,
    models=lists,
)
projects = st.builds(ProjectRow, id=st.just("proj_1"), limits=limits, models=lists, model_limits=of_models)
keys = st.builds(
    ApiKeyRow, id=st.just("key_1"), role=st.just("tenant"), limits=limits, models=lists, model_limits=of_models
)


def principal_of(key: ApiKeyRow, project: ProjectRow, organization: OrganizationRow, plan: PlanRow | None) -> Principal:
    credential = credential_of(key, project, organization, plan)
    assert credential is not None
    assert isinstance(credential.holder, Principal)
    return credential.holder


def least(amounts: list[int | None]) -> int | None:
    return min((amount for amount in amounts if amount is not None), default=None)


@given(keys, projects, organizations, plans, st.sampled_from(NAMES))
def test_the_narrowest_limit_decides(
    key: ApiKeyRow, project: ProjectRow, organization: OrganizationRow, plan: PlanRow | None, model: str
) -> None:
    caller = principal_of(key, project, organization, plan).using(model)
    for field in FIELDS:
        own = getattr(organization.limits, field)
        stated = [own if own is not None or plan is None else getattr(plan.limits, field)]
        for row in (project, key):
            stated.append(getattr(row.limits, field))
            stated += [getattr(each, field) for name, each in row.model_limits.items() if names_model(name, model)]
        assert least([getattr(scope.limits, field) for scope in caller.limits]) == least(stated)


@given(keys, projects, organizations, plans, st.sampled_from(NAMES))
def test_a_limit_counts_in_one_place_whoever_asks(
    key: ApiKeyRow, project: ProjectRow, organization: OrganizationRow, plan: PlanRow | None, model: str
) -> None:
    """Two limits that share a window would count a request twice."""
    caller = principal_of(key, project, organization, plan).using(model)
    places = [scope.id for scope in caller.limits]
    assert len(set(places)) == len(places)
    assert not any(" " in place for place in places), "scripts tell places apart by spaces"


@given(keys, projects, organizations, plans, st.sampled_from(NAMES))
def test_a_model_is_allowed_where_every_scope_allows_it(
    key: ApiKeyRow, project: ProjectRow, organization: OrganizationRow, plan: PlanRow | None, model: str
) -> None:
    of_all = organization.models if organization.models is not None or plan is None else plan.models
    stated = [found for found in (of_all, project.models, key.models) if found is not None]
    allowed = all(any(names_model(pattern, model) for pattern in found) for found in stated)
    caller = principal_of(key, project, organization, plan)
    assert (caller.who_denies(model) is None) == allowed
    with nullcontext() if allowed else pytest.raises(PermissionDenied, match="does not have access"):
        caller.check_model(model)


@given(limits, limits)
def test_an_own_limit_replaces_the_plan_s(own: Limits, plan: Limits) -> None:
    found = effective_limits(own, plan)
    for field in FIELDS:
        mine = getattr(own, field)
        assert getattr(found, field) == (getattr(plan, field) if mine is None else mine)
    assert effective_limits(own, Limits()) == own
    assert effective_limits(Limits(), plan) == plan
    assert effective_limits(found, plan) == found


@given(keys, projects, organizations, plans)
def test_the_weight_is_the_organization_s_own_or_the_plan_s(
    key: ApiKeyRow, project: ProjectRow, organization: OrganizationRow, plan: PlanRow | None
) -> None:
    stated = [organization.weight, None if plan is None else plan.weight, 1]
    first = next(weight for weight in stated if weight is not None)
    caller = principal_of(key, project, organization, plan)
    assert caller.weight == caller.weight_of("default") == first
    for tier in ("flex", "priority"):
        granted = None if plan is None else plan.service_tiers.get(tier)
        with nullcontext() if granted else pytest.raises(InvalidRequest, match=tier):
            assert caller.weight_of(tier) == (granted or {})["weight"]


@given(st.none() | st.lists(st.sampled_from(list(KeyScope)), min_size=1), keys, projects, organizations)
def test_what_a_key_is_for_is_what_it_states(
    scopes: list[KeyScope] | None, key: ApiKeyRow, project: ProjectRow, organization: OrganizationRow
) -> None:
    key.scopes = None if scopes is None else [*scopes]
    caller = principal_of(key, project, organization, None)
    assert caller.scopes == (None if scopes is None else frozenset(scopes))
    assert msgspec.structs.replace(caller, scopes=None).using("small").limits == caller.using("small").limits
