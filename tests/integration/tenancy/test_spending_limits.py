"""The monthly limits that billing makes budgets from, and what organizations are called."""

import pytest

from support.tenancy_stand import Tenancy
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import OrganizationId


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


async def test_slugs(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    assert await tenancy.operator_store.slug(organization.id) == "acme"
    with pytest.raises(NotFound):
        await tenancy.operator_store.slug(OrganizationId("org_none"))
