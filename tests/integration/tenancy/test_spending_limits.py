"""The monthly limits that billing makes budgets from, and what organizations are called."""

import pytest

from support.tenancy_stand import Tenancy
from tokenyard.core.budgets import AlertRules
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars


async def test_a_key_is_held_to_the_monthly_limits_of_its_own_scopes(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    other, _ = await tenancy.new_tenant("umbra")
    path = "/admin/organizations/acme"
    await tenancy.as_operator("PATCH", path, {"limits": {"monthly_spend_dollars": "10"}})
    body = {"name": "p", "limits": {"monthly_spend_dollars": "5.5"}}
    project = (await tenancy.as_operator("POST", f"{path}/projects", body)).json()["id"]
    limited, free = [
        (await tenancy.as_operator("POST", f"{path}/api_keys", {**more, "project": project})).json()["id"]
        for more in (body, {"name": "free"})
    ]
    limits_of = tenancy.store.monthly_limits
    of_both = {organization.id: 10_000_000_000, project: 5_500_000_000}
    assert await limits_of(organization.id, project, limited) == {**of_both, limited: 5_500_000_000}
    assert await limits_of(organization.id, project, free) == of_both
    assert await limits_of(organization.id, organization.default_project_id, free) == {organization.id: 10_000_000_000}
    assert await limits_of(other.id, project, limited) == {}, "I7"


async def test_alerts_go_by_the_limits_of_the_scopes_that_are_asked_for(tenancy: Tenancy) -> None:
    acme, secret = await tenancy.new_tenant("acme")
    other, _ = await tenancy.new_tenant("other")
    key = (await tenancy.authenticator.tenant(secret)).key
    path = "/admin/organizations/acme"
    body = {"name": "pro", "limits": {"monthly_spend_dollars": "9"}}
    assert (await tenancy.as_operator("POST", "/admin/plans", body)).status_code == 200
    await tenancy.as_operator("PATCH", path, {"plan": "pro", "alert_percents": [90, 30, 30]})
    await tenancy.as_operator("PATCH", f"{path}/api_keys/{key}", {"limits": {"monthly_spend_dollars": "2"}})
    rules_of = tenancy.operator_store.alert_rules
    scopes: dict[OrganizationId, list[str]] = {acme.id: [acme.id, key, acme.default_project_id], other.id: [key]}
    dollar = NanoDollars(10**9)
    assert await rules_of(scopes) == {
        acme.id: AlertRules((30, 90), {acme.id: NanoDollars(9 * dollar), key: NanoDollars(2 * dollar)}),
        other.id: AlertRules((50, 80, 100), {}),
    }, "I7: another's key has no limit for it"
    await tenancy.as_operator("PATCH", path, {"alert_percents": None, "plan": None})
    assert await rules_of({acme.id: []}) == {acme.id: AlertRules((50, 80, 100), {})}
    await tenancy.as_operator("PATCH", path, {"alert_percents": []})
    assert await rules_of({acme.id: []}) == {acme.id: AlertRules((), {})}
    refused = await tenancy.as_operator("PATCH", path, {"alert_percents": [0]})
    assert refused.json()["error"]["param"] == "alert_percents.0"


async def test_slugs(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    assert await tenancy.operator_store.slug(organization.id) == "acme"
    with pytest.raises(NotFound):
        await tenancy.operator_store.slug(OrganizationId("org_none"))
