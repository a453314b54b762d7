"""Operator routes: organizations, their projects and keys, and the operators' own keys."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from tokenyard.core.principal import Limits
from tokenyard.tenancy.api_keys import ApiKeys
from tokenyard.tenancy.audit import AUDIT_QUERY, AuditFilter, audit_filter
from tokenyard.tenancy.operator_store import PlanChoice, TenancyOperatorStore
from tokenyard.tenancy.organizations import Organizations
from tokenyard.tenancy.push import TenancyPush
from tokenyard.tenancy.store import TenancyStore
from tokenyard.tenancy.views import (
    AuditCursor,
    AuditEntry,
    NewKeyOfProject,
    NewOperatorKey,
    NewOrganization,
    NewProject,
    OperatorKeyCreated,
    OperatorKeyDeleted,
    OperatorKeyView,
    OrganizationChanges,
    OrganizationView,
    ProjectChanges,
    ProjectDetails,
    ProjectKeyChanges,
    ProjectKeyCreated,
    ProjectKeyDeleted,
    ProjectKeyDetails,
)
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page, PageSize


def operator_router(
    organizations: Organizations,
    store: TenancyStore,
    operator_store: TenancyOperatorStore,
    keys: ApiKeys,
    push: TenancyPush,
) -> APIRouter:
    """Return tenancy's operator routes; `{organization}` is an id or a slug."""
    routes = APIRouter(prefix="/admin", tags=["tenancy"])
    _organization_routes(routes, organizations, operator_store, push)
    _tenant_routes(routes, store, operator_store, keys, push)
    _operator_key_routes(routes, operator_store, keys)
    _audit_routes(routes, operator_store)
    return routes


def _organization_routes(
    routes: APIRouter, organizations: Organizations, operator_store: TenancyOperatorStore, push: TenancyPush
) -> None:
    @routes.post("/organizations")
    async def create(operator: CurrentOperator, body: NewOrganization) -> OrganizationView:
        """Create an organization with a default project; billing grants its opening credit."""
        return await organizations.create(
            name=body.name,
            slug=body.slug,
            limits=body.limits.applied_to(Limits()),
            plan=body.plan,
            rules=body.rules(),
            actor=operator.key,
        )

    @routes.get("/organizations")
    async def listing(_operator: CurrentOperator, after: After = None, limit: PageSize = 20) -> Page[OrganizationView]:
        return Page[OrganizationView].of(await operator_store.organizations(after=after, limit=limit + 1), limit)

    @routes.get("/organizations/{organization}")
    async def one(_operator: CurrentOperator, organization: str) -> OrganizationView:
        return await operator_store.organization(organization)

    @routes.patch("/organizations/{organization}")
    async def change(operator: CurrentOperator, organization: str, body: OrganizationChanges) -> OrganizationView:
        """Change what the body names. Archiving ends every key at once and keeps all data."""
        changed, messages = await operator_store.change_organization(
            organization,
            name=body.name,
            limits=None if body.limits is None else body.limits.applied_to,
            archived=body.archived,
            rules=body.rules(),
            plan=PlanChoice(body.plan) if body.names_plan else None,
            actor=operator.key,
        )
        await push.changed(messages)
        return changed


def _tenant_routes(
    routes: APIRouter, store: TenancyStore, operator_store: TenancyOperatorStore, keys: ApiKeys, push: TenancyPush
) -> None:
    """Routes below one organization."""

    async def named(_operator: CurrentOperator, organization: str) -> OrganizationView:
        return await operator_store.organization(organization)

    Owner = Annotated[OrganizationView, Depends(named)]

    @routes.post("/organizations/{organization}/projects")
    async def create_project(operator: CurrentOperator, owner: Owner, body: NewProject) -> ProjectDetails:
        limits = body.limits.applied_to(Limits())
        return await store.create_project(
            owner.id, name=body.name, limits=limits, actor=operator.key, rules=body.rules()
        )

    @routes.get("/organizations/{organization}/projects")
    async def projects(owner: Owner, after: After = None, limit: PageSize = 20) -> Page[ProjectDetails]:
        return Page[ProjectDetails].of(await store.projects(owner.id, after=after, limit=limit + 1), limit)

    @routes.patch("/organizations/{organization}/projects/{project}")
    async def change_project(
        operator: CurrentOperator, owner: Owner, project: str, body: ProjectChanges
    ) -> ProjectDetails:
        changed, messages = await store.change_project(
            owner.id,
            project,
            name=body.name,
            limits=None if body.limits is None else body.limits.applied_to,
            archived=body.archived,
            actor=operator.key,
            rules=body.rules(),
        )
        await push.changed(messages)
        return changed

    @routes.post("/organizations/{organization}/api_keys")
    async def create_key(operator: CurrentOperator, owner: Owner, body: NewKeyOfProject) -> ProjectKeyCreated:
        """Make a key. `value` is shown here and never again."""
        key, secret = await keys.create(
            owner.id,
            owner.default_project_id if body.project is None else body.project,
            name=body.name,
            limits=body.limits.applied_to(Limits()),
            expires_in_s=body.expires_in_seconds,
            actor=operator.key,
            rules=body.rules(),
        )
        return ProjectKeyCreated(**dict(key), value=secret)

    @routes.get("/organizations/{organization}/api_keys")
    async def list_keys(owner: Owner, after: After = None, limit: PageSize = 20) -> Page[ProjectKeyDetails]:
        found = await store.keys(owner.id, project=None, after=after, limit=limit + 1)
        return Page[ProjectKeyDetails].of(found, limit)

    @routes.get("/organizations/{organization}/api_keys/{key}")
    async def one_key(owner: Owner, key: str) -> ProjectKeyDetails:
        return await store.key(owner.id, key)

    @routes.patch("/organizations/{organization}/api_keys/{key}")
    async def change_key(
        operator: CurrentOperator, owner: Owner, key: str, body: ProjectKeyChanges
    ) -> ProjectKeyDetails:
        limits = None if body.limits is None else body.limits.applied_to
        changed, messages = await store.change_key(
            owner.id,
            key,
            name=body.name,
            limits=limits,
            actor=operator.key,
            rules=body.rules(),
            expiry=body.expiry,
        )
        await push.changed(messages)
        return changed

    @routes.delete("/organizations/{organization}/api_keys/{key}")
    async def revoke_key(operator: CurrentOperator, owner: Owner, key: str) -> ProjectKeyDeleted:
        """End a key at once, for ever."""
        await keys.revoke(owner.id, key, actor=operator.key)
        return ProjectKeyDeleted(id=key)


def _operator_key_routes(routes: APIRouter, operator_store: TenancyOperatorStore, keys: ApiKeys) -> None:
    @routes.post("/operator_keys")
    async def create(operator: CurrentOperator, body: NewOperatorKey) -> OperatorKeyCreated:
        """Make an operator's key. `value` is shown here and never again."""
        key, secret = await keys.create_operator(
            name=body.name,
            actor=operator.key,
            expires_in_s=body.expires_in_seconds,
            addresses=body.addresses,
        )
        return OperatorKeyCreated(**dict(key), value=secret)

    @routes.get("/operator_keys")
    async def listing(_operator: CurrentOperator) -> Page[OperatorKeyView]:
        found = await operator_store.operator_keys()
        return Page[OperatorKeyView].of(found, len(found))

    @routes.delete("/operator_keys/{key}")
    async def revoke(operator: CurrentOperator, key: str) -> OperatorKeyDeleted:
        await keys.revoke_operator(key, actor=operator.key)
        return OperatorKeyDeleted(id=key)


def _audit_routes(routes: APIRouter, operator_store: TenancyOperatorStore) -> None:
    @routes.get("/audit_logs", openapi_extra=AUDIT_QUERY)
    async def listing(
        _operator: CurrentOperator,
        wanted: Annotated[AuditFilter, Depends(audit_filter)],
        organization: Annotated[str | None, Query(max_length=96)] = None,
        after: AuditCursor = None,
        limit: PageSize = 20,
    ) -> Page[AuditEntry]:
        """List who changed what, newest first."""
        found = await operator_store.audit_log(wanted, organization=organization, before=after, limit=limit + 1)
        return Page[AuditEntry].of(found, limit)
