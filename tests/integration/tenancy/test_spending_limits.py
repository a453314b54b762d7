"""The monthly limits that billing makes budgets from, and what organizations are called."""

import pytest

from support.tenancy_stand import Tenancy
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId


async def test_each_scope_with_a_monthly_limit_is_named(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    other, _ = await tenancy.new_tenant("umbra")
    limits = tenancy.store.monthly_limits
    key = ApiKeyId("key_none")
    assert await limits(organization.id, organization.default_project_id, key) == {}
    path = "/admin/organizations/acme"
    await tenancy.as_operator("PATCH", path, {"limits": {"monthly_spend_dollars": "10"}})
    body = {"name": "p", "limits": {"monthly_spend_dollars": "5.5"}}
    project = (await tenancy.as_operator("POST", f"{path}/projects", body)).json()["id"]
    key = (await tenancy.as_operator("POST", f"{path}/api_keys", {**body, "project": project})).json()["id"]
    assert await limits(organization.id, project, key) == {
        organization.id: 10_000_000_000,
        project: 5_500_000_000,
        key: 5_500_000_000,
    }
    assert await limits(organization.id, organization.default_project_id, ApiKeyId("key_none")) == {
        organization.id: 10_000_000_000
    }
    assert await limits(other.id, project, key) == {}


async def test_slugs(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    assert await tenancy.operator_store.slug(organization.id) == "acme"
    with pytest.raises(NotFound):
        await tenancy.operator_store.slug(OrganizationId("org_none"))
