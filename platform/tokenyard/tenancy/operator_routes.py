"""Operator routes: organizations, their projects and keys, and the operators' own keys."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from tokenyard.core.ids import ProjectId
from tokenyard.core.principal import Limits
from tokenyard.tenancy.api_keys import ApiKeys
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.organizations import Organizations
from tokenyard.tenancy.schemas import (
    NewKeyBody,
    NewOrganizationBody,
    NewOwnKeyBody,
    NewProjectBody,
    OrganizationChanges,
    ProjectChanges,
    shown_audit,
    shown_key,
    shown_organization,
    shown_project,
)
from tokenyard.tenancy.store import TenancyStore
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, PageSize, page


def router(
    organizations: Organizations, store: TenancyStore, operator_store: TenancyOperatorStore, keys: ApiKeys
) -> APIRouter:
    """Return tenancy's operator routes; `{organization}` is an id or a slug."""
    routes = APIRouter(prefix="/admin", tags=["tenancy"])
    _organization_routes(routes, organizations, operator_store, keys)
    _project_routes(routes, store, operator_store, keys)
    _key_routes(routes, store, operator_store, keys)
    _operator_key_routes(routes, operator_store, keys)
    _audit_routes(routes, operator_store)
    return routes


def _organization_routes(
    routes: APIRouter, organizations: Organizations, operator_store: TenancyOperatorStore, keys: ApiKeys
) -> None:
    @routes.post("/organizations")
    async def create(operator: CurrentOperator, body: NewOrganizationBody) -> dict[str, Any]:
        """Create an organization with a default project; billing grants its opening credit."""
        organization = await organizations.create(
            name=body.name,
            slug=body.slug,
            weight=body.weight,
            timezone=body.timezone,
            limits=body.limits.applied_to(Limits()),
            actor=operator.key,
        )
        return shown_organization(organization)

    @routes.get("/organizations")
    async def listing(_operator: CurrentOperator, after: After = None, limit: PageSize = 20) -> dict[str, Any]:
        found = await operator_store.organizations(after=after, limit=limit + 1)
        return page([shown_organization(organization) for organization in found], limit)

    @routes.get("/organizations/{organization}")
    async def one(_operator: CurrentOperator, organization: str) -> dict[str, Any]:
        return shown_organization(await operator_store.organization(organization))

    @routes.patch("/organizations/{organization}")
    async def change(operator: CurrentOperator, organization: str, body: OrganizationChanges) -> dict[str, Any]:
        """Change what the body names. Archiving ends every key at once and keeps all data."""
        before = await operator_store.organization(organization)
        changed, ended = await operator_store.change_organization(
            before.id,
            name=body.name,
            weight=body.weight,
            timezone=body.timezone,
            limits=None if body.limits is None else body.limits.applied_to(before.limits),
            archived=body.archived,
            actor=operator.key,
        )
        await keys.ended(ended)
        return shown_organization(changed)


def _project_routes(
    routes: APIRouter, store: TenancyStore, operator_store: TenancyOperatorStore, keys: ApiKeys
) -> None:
    @routes.post("/organizations/{organization}/projects")
    async def create(operator: CurrentOperator, organization: str, body: NewProjectBody) -> dict[str, Any]:
        owner = (await operator_store.organization(organization)).id
        limits = body.limits.applied_to(Limits())
        return shown_project(await store.create_project(owner, name=body.name, limits=limits, actor=operator.key))

    @routes.get("/organizations/{organization}/projects")
    async def listing(
        _operator: CurrentOperator, organization: str, after: After = None, limit: PageSize = 20
    ) -> dict[str, Any]:
        owner = (await operator_store.organization(organization)).id
        found = await store.projects(owner, after=after, limit=limit + 1)
        return page([shown_project(project) for project in found], limit)

    @routes.patch("/organizations/{organization}/projects/{project}")
    async def change(
        operator: CurrentOperator, organization: str, project: str, body: ProjectChanges
    ) -> dict[str, Any]:
        owner = (await operator_store.organization(organization)).id
        before = await store.project(owner, project)
        changed, ended = await store.change_project(
            owner,
            project,
            name=body.name,
            limits=None if body.limits is None else body.limits.applied_to(before.limits),
            archived=body.archived,
            actor=operator.key,
        )
        await keys.ended(ended)
        return shown_project(changed)


def _key_routes(routes: APIRouter, store: TenancyStore, operator_store: TenancyOperatorStore, keys: ApiKeys) -> None:
    @routes.post("/organizations/{organization}/api_keys")
    async def create(operator: CurrentOperator, organization: str, body: NewKeyBody) -> dict[str, Any]:
        """Make a key. `value` is shown here and never again."""
        owner = await operator_store.organization(organization)
        key, secret = await keys.create(
            owner.id,
            ProjectId(body.project) if body.project is not None else owner.default_project,
            name=body.name,
            limits=body.limits.applied_to(Limits()),
            expires_in_s=body.expires_in_seconds,
            actor=operator.key,
        )
        return shown_key(key, secret)

    @routes.get("/organizations/{organization}/api_keys")
    async def listing(
        _operator: CurrentOperator, organization: str, after: After = None, limit: PageSize = 20
    ) -> dict[str, Any]:
        owner = (await operator_store.organization(organization)).id
        found = await store.keys(owner, project=None, after=after, limit=limit + 1)
        return page([shown_key(key) for key in found], limit)

    @routes.get("/organizations/{organization}/api_keys/{key}")
    async def one(_operator: CurrentOperator, organization: str, key: str) -> dict[str, Any]:
        owner = (await operator_store.organization(organization)).id
        return shown_key(await store.key(owner, key))

    @routes.delete("/organizations/{organization}/api_keys/{key}")
    async def revoke(operator: CurrentOperator, organization: str, key: str) -> dict[str, Any]:
        """End a key at once, for ever."""
        owner = (await operator_store.organization(organization)).id
        await keys.revoke(owner, key, actor=operator.key)
        return {"id": key, "object": "organization.project.api_key.deleted", "deleted": True}


def _operator_key_routes(routes: APIRouter, operator_store: TenancyOperatorStore, keys: ApiKeys) -> None:
    @routes.post("/operator_keys")
    async def create(operator: CurrentOperator, body: NewOwnKeyBody) -> dict[str, Any]:
        """Make an operator's key. `value` is shown here and never again."""
        key, secret = await keys.create_operator(
            name=body.name, actor=operator.key, expires_in_s=body.expires_in_seconds
        )
        return shown_key(key, secret)

    @routes.get("/operator_keys")
    async def listing(_operator: CurrentOperator) -> dict[str, Any]:
        found = [shown_key(key) for key in await operator_store.operator_keys()]
        return page(found, len(found))

    @routes.delete("/operator_keys/{key}")
    async def revoke(operator: CurrentOperator, key: str) -> dict[str, Any]:
        await keys.revoke_operator(key, actor=operator.key)
        return {"id": key, "object": "organization.admin_api_key.deleted", "deleted": True}


def _audit_routes(routes: APIRouter, operator_store: TenancyOperatorStore) -> None:
    @routes.get("/audit_logs")
    async def listing(
        _operator: CurrentOperator,
        organization: Annotated[str | None, Query(max_length=96)] = None,
        after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
        limit: PageSize = 20,
    ) -> dict[str, Any]:
        """List who changed what, newest first."""
        found = await operator_store.audit_log(organization=organization, before=after, limit=limit + 1)
        return page([shown_audit(entry) for entry in found], limit)
