"""Tenant routes in OpenAI's shapes: an organization's own projects and the keys of the caller's project."""

from typing import Annotated

from fastapi import APIRouter, Depends

from tokenyard.core.errors import PermissionDenied
from tokenyard.core.ids import ProjectId
from tokenyard.core.principal import Limits, Principal
from tokenyard.tenancy.api_keys import ApiKeys
from tokenyard.tenancy.audit import AUDIT_QUERY, AuditFilter, audit_filter
from tokenyard.tenancy.push import TenancyPush
from tokenyard.tenancy.store import TenancyStore
from tokenyard.tenancy.views import (
    AuditCursor,
    AuditEntry,
    NewKey,
    ProjectDetails,
    ProjectKeyChanges,
    ProjectKeyCreated,
    ProjectKeyDeleted,
    ProjectKeyDetails,
    ProjectKeyView,
    ProjectView,
)
from tokenyard.web.auth import CurrentTenant, FreshTenant
from tokenyard.web.pages import After, Page, PageSize


def tenant_router(store: TenancyStore, keys: ApiKeys, push: TenancyPush) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["tenancy"])
    _project_routes(routes, store)
    _key_routes(routes, store, keys, push)

    @routes.get("/audit_logs", openapi_extra=AUDIT_QUERY)
    async def audit_log(
        tenant: CurrentTenant,
        wanted: Annotated[AuditFilter, Depends(audit_filter)],
        after: AuditCursor = None,
        limit: PageSize = 20,
    ) -> Page[AuditEntry]:
        """List who changed what in the caller's organization, newest first."""
        found = await store.audit_log(tenant.organization, wanted, before=after, limit=limit + 1)
        return Page[AuditEntry].of(found, limit)

    return routes


def _project_routes(routes: APIRouter, store: TenancyStore) -> None:

    @routes.get("/projects")
    async def projects(tenant: CurrentTenant, after: After = None, limit: PageSize = 20) -> Page[ProjectView]:
        return Page[ProjectView].of(await store.projects(tenant.organization, after=after, limit=limit + 1), limit)

    @routes.get("/projects/{project}")
    async def one_project(tenant: CurrentTenant, project: str) -> ProjectDetails:
        return await store.project(tenant.organization, project)


def _key_routes(routes: APIRouter, store: TenancyStore, keys: ApiKeys, push: TenancyPush) -> None:
    @routes.get("/projects/{project}/api_keys")
    async def listing(
        tenant: CurrentTenant, project: str, after: After = None, limit: PageSize = 20
    ) -> Page[ProjectKeyView]:
        own = await own_project(store, tenant, project)
        found = await store.keys(tenant.organization, project=own, after=after, limit=limit + 1)
        return Page[ProjectKeyView].of(found, limit)

    @routes.post("/projects/{project}/api_keys")
    async def create(tenant: FreshTenant, project: str, body: NewKey) -> ProjectKeyCreated:
        """Make a key. `value` is shown here and never again."""
        own = await own_project(store, tenant, project)
        await _check_free(store, tenant)
        key, secret = await keys.create(
            tenant.organization,
            own,
            name=body.name,
            limits=body.limits.applied_to(Limits()),
            expires_in_s=body.expires_in_seconds,
            actor=tenant.key,
            rules=body.rules(),
        )
        return ProjectKeyCreated(**dict(key), value=secret)

    @routes.get("/projects/{project}/api_keys/{key}")
    async def one(tenant: CurrentTenant, project: str, key: str) -> ProjectKeyDetails:
        return await store.key(tenant.organization, key, project=await own_project(store, tenant, project))

    @routes.post("/projects/{project}/api_keys/{key}")
    async def change(tenant: FreshTenant, project: str, key: str, body: ProjectKeyChanges) -> ProjectKeyDetails:
        """Change what the body names."""
        await store.key(tenant.organization, key, project=await own_project(store, tenant, project))
        await _check_free(store, tenant)
        limits = None if body.limits is None else body.limits.applied_to
        changed, messages = await store.change_key(
            tenant.organization,
            key,
            name=body.name,
            limits=limits,
            actor=tenant.key,
            rules=body.rules(),
            expiry=body.expiry,
        )
        await push.changed(messages)
        return changed

    @routes.delete("/projects/{project}/api_keys/{key}")
    async def revoke(tenant: FreshTenant, project: str, key: str) -> ProjectKeyDeleted:
        """End a key at once, for ever."""
        await store.key(tenant.organization, key, project=await own_project(store, tenant, project))
        await keys.revoke(tenant.organization, key, actor=tenant.key)
        return ProjectKeyDeleted(id=key)


async def _check_free(store: TenancyStore, tenant: Principal) -> None:
    """Refuse a restricted key, which could free itself by making or changing others."""
    maker = await store.key(tenant.organization, tenant.key)
    if not maker.is_free:
        raise PermissionDenied("A key with limits or an expiry of its own may not make or change other keys.")


async def own_project(store: TenancyStore, tenant: Principal, project: str) -> ProjectId:
    """Return the caller's own project: keys of others are not its business."""
    found = await store.project(tenant.organization, project)
    if found.id != tenant.project:
        raise PermissionDenied("This key belongs to another project of the organization.")
    return found.id
