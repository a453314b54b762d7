"""The monthly limits that billing makes budgets from, and what organizations are called."""

from typing import TYPE_CHECKING

import pytest

from tokenyard.core.errors import NotFound
from tokenyard.core.ids import OrganizationId
from tokenyard.tenancy.operator_store import OrganizationNames
from tokenyard.tenancy.spending_limits import SpendingLimits

if TYPE_CHECKING:
    from conftest import Tenancy


async def test_each_scope_with_a_monthly_limit_is_named(tenancy: "Tenancy") -> None:
    organization, _ = await tenancy.new_tenant("acme")
    other, _ = await tenancy.new_tenant("umbra")
    limits = SpendingLimits(tenancy.database)
    assert await limits.monthly(organization.id) == {}
    path = "/admin/organizations/acme"
    await tenancy.as_operator("PATCH", path, {"limits": {"monthly_spend_dollars": "10"}})
    body = {"name": "p", "limits": {"monthly_spend_dollars": "5.5"}}
    project = (await tenancy.as_operator("POST", f"{path}/projects", body)).json()["id"]
    keys = [
        (await tenancy.as_operator("POST", f"{path}/api_keys", {**body, "project": project})).json()["id"]
        for _ in range(2)
    ]
    await tenancy.as_operator("DELETE", f"{path}/api_keys/{keys[1]}")
    assert await limits.monthly(organization.id) == {
        organization.id: 10_000_000_000,
        project: 5_500_000_000,
        keys[0]: 5_500_000_000,
    }
    assert await limits.monthly(other.id) == {}


async def test_names_slugs_and_time_zones(tenancy: "Tenancy") -> None:
    organization, _ = await tenancy.new_tenant("acme")
    names = OrganizationNames(tenancy.database)
    assert await names.names() == {organization.id: ("Acme", "acme")}
    assert (await names.slug(organization.id), await names.timezone(organization.id)) == ("acme", "UTC")
    for unknown in (names.slug, names.timezone):
        with pytest.raises(NotFound):
            await unknown(OrganizationId("org_none"))
