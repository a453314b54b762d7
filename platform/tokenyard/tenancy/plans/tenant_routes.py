"""Tenant routes in OpenAI's shapes: which models the caller's project may use, and what limits some of them have."""

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter

from tokenyard.core.errors import NotFound
from tokenyard.core.principal import Principal
from tokenyard.tenancy.plans.rules import MAX_MODEL_LENGTH, MODEL_PATTERN, ModelRules, Rules
from tokenyard.tenancy.plans.views import (
    ModelPermissions,
    ModelPermissionsDeleted,
    ModelRateLimit,
    ModelRateLimitChanges,
    NewModelPermissions,
)
from tokenyard.tenancy.push import TenancyPush
from tokenyard.tenancy.store import TenancyStore
from tokenyard.tenancy.tenant_routes import own_project
from tokenyard.tenancy.views import ProjectDetails
from tokenyard.web.auth import CurrentTenant, FreshTenant
from tokenyard.web.pages import Page

Model = Annotated[str, PathParameter(max_length=MAX_MODEL_LENGTH, pattern=MODEL_PATTERN)]


def project_models_router(store: TenancyStore, push: TenancyPush) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization/projects/{project}", tags=["tenancy"])

    async def change(tenant: Principal, project: str, rules: Rules) -> ProjectDetails:
        own = await own_project(store, tenant, project)
        changed, messages = await store.change_project(
            tenant.organization, own, name=None, limits=None, archived=None, actor=tenant.key, rules=rules
        )
        await push.changed(messages)
        return changed

    @routes.get("/rate_limits")
    async def rate_limits(tenant: CurrentTenant, project: str) -> Page[ModelRateLimit]:
        """List the limits of models that the project states; there are few, so they come in one page."""
        own = await store.project(tenant.organization, await own_project(store, tenant, project))
        found = [ModelRateLimit.of(model, limits) for model, limits in own.model_limits.items()]
        return Page[ModelRateLimit].of(found, len(found))

    @routes.post("/rate_limits/{model:path}")
    async def limit_model(
        tenant: FreshTenant, project: str, model: Model, body: ModelRateLimitChanges
    ) -> ModelRateLimit:
        """Limit a model in the project; the organization's own limits hold as before."""
        changed = await change(tenant, project, ModelRules(model_limits={model: body.limits()}).rules())
        return ModelRateLimit.of(model, changed.model_limits.get(model, body.limits()))

    @routes.get("/model_permissions")
    async def model_permissions(tenant: CurrentTenant, project: str) -> ModelPermissions:
        """Show the models that the project may use; where it may use all, there is nothing to show."""
        own = await store.project(tenant.organization, await own_project(store, tenant, project))
        if own.models is None:
            raise NotFound(f"The project `{own.id}` has no model permissions: it may use every model.")
        return ModelPermissions(model_ids=own.models)

    @routes.post("/model_permissions")
    async def allow_models(tenant: FreshTenant, project: str, body: NewModelPermissions) -> ModelPermissions:
        await change(tenant, project, ModelRules(models=body.model_ids).rules())
        return ModelPermissions(model_ids=body.model_ids)

    @routes.delete("/model_permissions")
    async def allow_all_models(tenant: FreshTenant, project: str) -> ModelPermissionsDeleted:
        """Let the project use every model that its organization may use."""
        await change(tenant, project, ModelRules(models=None).rules())
        return ModelPermissionsDeleted()

    return routes
