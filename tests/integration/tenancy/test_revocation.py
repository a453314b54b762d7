"""A key that ended is dead at once for all that costs money, also in gateways whose caches still know it."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from support.fakes.admission_requests import BudgetTable, admission_request, open_buckets
from support.tenancy_stand import Tenancy
from tokenyard.core.admission import PrincipalOutdated
from tokenyard.core.budgets import wallet
from tokenyard.core.errors import Unauthenticated
from tokenyard.core.ids import ApiKeyId
from tokenyard.limits.admission import RedisAdmission
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.tenant_routes import tenant_router
from tokenyard.tenancy.views import OrganizationView
from tokenyard.web.errors import install_error_handlers

Ending = Callable[[Tenancy, OrganizationView, ApiKeyId], Awaitable[object]]


async def _revoke(tenancy: Tenancy, organization: OrganizationView, key: ApiKeyId) -> None:
    await tenancy.keys.revoke(organization.id, key, actor=BOOTSTRAP)


async def _archive(tenancy: Tenancy, organization: OrganizationView, _key: ApiKeyId) -> None:
    path = f"/admin/organizations/{organization.id}"
    assert (await tenancy.as_operator("PATCH", path, {"archived": True})).status_code == 200


async def _archive_project(tenancy: Tenancy, organization: OrganizationView, _key: ApiKeyId) -> None:
    path = f"/admin/organizations/{organization.id}/projects/{organization.default_project_id}"
    assert (await tenancy.as_operator("PATCH", path, {"archived": True})).status_code == 200


@pytest.mark.parametrize("end", [_revoke, _archive, _archive_project])
async def test_another_gateway_s_next_paid_call_is_refused(tenancy: Tenancy, tmp_path: Path, end: Ending) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    gateway = tenancy.deaf_process()
    caller = await gateway.tenant(secret)
    budgets = BudgetTable()
    budgets.set(wallet(organization.id), 1000)
    await open_buckets(tenancy.redis)
    admission = RedisAdmission(tenancy.redis, budgets.load, spool_folder=tmp_path, lease_ms=30_000, renewal_ms=5_000)
    await admission.admit(admission_request(caller, amount=1))

    await end(tenancy, organization, caller.key)
    assert await gateway.tenant(secret) == caller, "its cache still knows the key"
    with pytest.raises(PrincipalOutdated):
        await admission.admit(admission_request(caller, amount=1))
    with pytest.raises(Unauthenticated):
        await gateway.fresh_tenant(secret)


@pytest.mark.parametrize("end", [_revoke, _archive])
async def test_an_ended_key_neither_makes_nor_ends_keys(tenancy: Tenancy, end: Ending) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    gateway = tenancy.deaf_process()
    caller = await gateway.tenant(secret)
    other, _ = await tenancy.keys.create(organization.id, caller.project, name="other", actor=BOOTSTRAP)
    path = f"/v1/organization/projects/{caller.project}/api_keys"
    await end(tenancy, organization, caller.key)
    assert await gateway.tenant(secret) == caller, "its cache still knows the key"
    app = FastAPI()
    app.state.authenticator = gateway
    install_error_handlers(app)
    app.include_router(tenant_router(tenancy.store, tenancy.keys, tenancy.push))
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://gateway", headers=headers
    ) as http:
        assert (await http.post(path, json={"name": "heir"})).status_code == 401
        assert (await http.delete(f"{path}/{other.id}")).status_code == 401


@pytest.mark.parametrize("end", [_revoke, _archive])
async def test_a_key_asked_for_afresh_is_dead_at_once(tenancy: Tenancy, end: Ending) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    gateway = tenancy.deaf_process()
    caller = await gateway.fresh_tenant(secret)
    await end(tenancy, organization, caller.key)
    assert await gateway.tenant(secret) == caller, "its cache still knows the key"
    with pytest.raises(Unauthenticated):
        await gateway.fresh_tenant(secret)
