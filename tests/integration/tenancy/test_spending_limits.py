"""The monthly limits that billing makes budgets from, and what organizations are called."""

import pytest

from support.tenancy_stand import Tenancy
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import OrganizationId


async def test_each_scope_with_a_monthly_limit_is_named(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    other, _ = await tenancy.new_tenant("umbra")
    assert await tenancy.store.monthly(organization.id) == {}
    path = "/admin/organizations/acme"
    await tenancy.as_operator("PATCH", path, {"limits": {"monthly_spend_dollars": "10"}})
    body = {"name": "p", "limits": {"monthly_spend_dollars": "5.5"}}
    project = (await tenancy.as_operator("POST", f"{path}/projects", body)).json()["id"]
    keys = [
        (await tenancy.as_operator("POST", f"{path}/api_keys", {**body, "project": project})).json()["id"]
        for _ in range(2)
    ]
    await tenancy.as_operator("DELETE", f"{path}/api_keys/{keys[1]}")
    assert await tenancy.store.monthly(organization.id) == {
        organization.id: 10_000_000_000,
        project: 5_500_000_000,
        keys[0]: 5_500_000_000,
    }
    assert await tenancy.store.monthly(other.id) == {}


async def test_slugs(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    assert await tenancy.operator_store.slug(organization.id) == "acme"
    with pytest.raises(NotFound):
        await tenancy.operator_store.slug(OrganizationId("org_none"))
