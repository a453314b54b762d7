"""Tenant routes in OpenAI's shapes: an organization's own projects and the keys of the caller's project."""

from fastapi import APIRouter

from tokenyard.core.errors import PermissionDenied
from tokenyard.core.ids import ProjectId
from tokenyard.core.principal import Principal
from tokenyard.tenancy.api_keys import ApiKeys
from tokenyard.tenancy.store import TenancyStore
from tokenyard.tenancy.views import (
    LimitsView,
    NewKey,
    ProjectDetails,
    ProjectKeyCreated,
    ProjectKeyDeleted,
    ProjectKeyDetails,
    ProjectKeyView,
    ProjectView,
)
from tokenyard.web.auth import CurrentTenant, FreshTenant
from tokenyard.web.pages import After, Page, PageSize


def tenant_router(store: TenancyStore, keys: ApiKeys) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization/projects", tags=["tenancy"])

    @routes.get("")
    async def projects(tenant: CurrentTenant, after: After = None, limit: PageSize = 20) -> Page[ProjectView]:
        return Page[ProjectView].of(await store.projects(tenant.organization, after=after, limit=limit + 1), limit)

    @routes.get("/{project}")
    async def one_project(tenant: CurrentTenant, project: str) -> ProjectDetails:
        return await store.project(tenant.organization, project)

    @routes.get("/{project}/api_keys")
    async def listing(
        tenant: CurrentTenant, project: str, after: After = None, limit: PageSize = 20
    ) -> Page[ProjectKeyView]:
        own = await _own(store, tenant, project)
        found = await store.keys(tenant.organization, project=own, after=after, limit=limit + 1)
        return Page[ProjectKeyView].of(found, limit)

    @routes.post("/{project}/api_keys")
    async def create(tenant: FreshTenant, project: str, body: NewKey) -> ProjectKeyCreated:
        """Make a key. `value` is shown here and never again."""
        own = await _own(store, tenant, project)
        maker = await store.key(tenant.organization, tenant.key)
        # Otherwise a restricted key could free itself by making others.
        if maker.limits != LimitsView() or maker.expires_at is not None:
            raise PermissionDenied("A key with limits or an expiry of its own may not make other keys.")
        key, secret = await keys.create(
            tenant.organization, own, name=body.name, expires_in_s=body.expires_in_seconds, actor=tenant.key
        )
        return ProjectKeyCreated(**dict(key), value=secret)

    @routes.get("/{project}/api_keys/{key}")
    async def one(tenant: CurrentTenant, project: str, key: str) -> ProjectKeyDetails:
        return await store.key(tenant.organization, key, project=await _own(store, tenant, project))

    @routes.delete("/{project}/api_keys/{key}")
    async def revoke(tenant: FreshTenant, project: str, key: str) -> ProjectKeyDeleted:
        """End a key at once, for ever."""
        await store.key(tenant.organization, key, project=await _own(store, tenant, project))
        await keys.revoke(tenant.organization, key, actor=tenant.key)
        return ProjectKeyDeleted(id=key)

    return routes


async def _own(store: TenancyStore, tenant: Principal, project: str) -> ProjectId:
    """Return the caller's own project: keys of others are not its business."""
    found = await store.project(tenant.organization, project)
    if found.id != tenant.project:
        raise PermissionDenied("This key belongs to another project of the organization.")
    return found.id
