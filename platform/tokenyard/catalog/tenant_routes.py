"""Tenant routes of the catalog: the models an organization may call, its fine-tunes' ends, its aliases."""

from typing import Annotated

from fastapi import APIRouter, Query

from tokenyard.catalog.adapters.adapter_catalog import AdapterCatalog
from tokenyard.catalog.aliases.model_aliases import ModelAliases
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.views import (
    AliasChange,
    AliasDeleted,
    AliasRevisionView,
    AliasView,
    ModelDeleted,
    ModelDetails,
    ModelList,
    NewAlias,
)
from tokenyard.core.errors import InvalidRequest
from tokenyard.web.auth import AnyTenant, FineTuningTenant, FreshFineTuningTenant
from tokenyard.web.pages import Page

MAX_PAGE = 1000
ModelName = Annotated[str | None, Query(max_length=255)]


def models_router(models: ModelCatalog) -> APIRouter:
    """Return what every gateway serves, also one without the control plane."""
    routes = APIRouter(prefix="/v1/models", tags=["catalog"])

    @routes.get("", response_model_exclude_none=True)
    async def listing(
        tenant: AnyTenant,
        limit: Annotated[int | None, Query(ge=1, le=MAX_PAGE)] = None,
        after: ModelName = None,
        after_id: ModelName = None,
        before_id: ModelName = None,
    ) -> ModelList:
        """List all models, or the first `limit` behind the model `after`, which Anthropic's clients call `after_id`."""
        if before_id is not None:
            raise InvalidRequest("Models are listed forwards only: use `after_id`.", param="before_id")
        found = await models.list_models(
            tenant.organization,
            after=after_id if after is None else after,
            limit=None if limit is None else limit + 1,
            allowed=lambda name: tenant.who_denies(name) is None,
        )
        return ModelList(data=list(found[:limit]), has_more=None if limit is None else len(found) > limit)

    @routes.get("/{name:path}", response_model_exclude_none=True)
    async def one(tenant: AnyTenant, name: str) -> ModelDetails:
        """Show one model; an alias answers as what it stands for."""
        found = await models.get(tenant.organization, name)
        tenant.check_model(found.id)
        return found

    return routes


def tenant_router(adapters: AdapterCatalog, aliases: ModelAliases) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["catalog"])

    @routes.delete("/models/{name:path}")
    async def delete(tenant: FreshFineTuningTenant, name: str) -> ModelDeleted:
        """Delete a fine-tune of the caller's organization, for ever."""
        await adapters.delete(tenant.organization, name, actor=tenant.key)
        return ModelDeleted(id=name)

    @routes.get("/model_aliases")
    async def listing(tenant: FineTuningTenant) -> Page[AliasView]:
        found = await aliases.store.all(tenant.organization)
        return Page[AliasView].of(found, len(found))

    @routes.post("/model_aliases")
    async def set_alias(tenant: FreshFineTuningTenant, body: NewAlias) -> AliasView:
        """Let a name of the organization's own stand for a model; replies name the model itself."""
        return await aliases.point(tenant, body.alias, body.model)

    @routes.get("/model_aliases/{alias}")
    async def one(tenant: FineTuningTenant, alias: str) -> AliasView:
        return await aliases.store.get(tenant.organization, alias)

    @routes.post("/model_aliases/{alias}")
    async def change(tenant: FreshFineTuningTenant, alias: str, body: AliasChange) -> AliasView:
        """Move an alias to another `model`, or roll it back to an earlier `revision`: its number, or "previous"."""
        if body.model is not None and body.revision is None:
            return await aliases.point(tenant, alias, body.model, must_exist=True)
        if body.revision is not None and body.model is None:
            return await aliases.roll_back(tenant, alias, None if body.revision == "previous" else body.revision)
        raise InvalidRequest("Give either `model` or `revision`.", param="revision")

    @routes.get("/model_aliases/{alias}/revisions")
    async def revisions(tenant: FineTuningTenant, alias: str) -> Page[AliasRevisionView]:
        """List what an alias stood for, newest first; the last hundred are kept."""
        found = await aliases.store.revisions(tenant.organization, alias)
        return Page[AliasRevisionView].of(found, len(found))

    @routes.delete("/model_aliases/{alias}")
    async def delete_alias(tenant: FreshFineTuningTenant, alias: str) -> AliasDeleted:
        await aliases.delete(tenant, alias)
        return AliasDeleted(id=alias)

    return routes
