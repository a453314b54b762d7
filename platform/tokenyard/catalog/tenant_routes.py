"""Tenant routes of the catalog: the models an organization may call, its fine-tunes' ends, its aliases."""

from fastapi import APIRouter

from tokenyard.catalog.adapters import AdapterCatalog
from tokenyard.catalog.base_models import BaseModels
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.push import CatalogPush
from tokenyard.catalog.store import CatalogStore
from tokenyard.catalog.views import AliasDeleted, AliasView, ModelDeleted, ModelDetails, ModelList, NewAlias
from tokenyard.core.errors import Conflict
from tokenyard.web.auth import CurrentTenant
from tokenyard.web.pages import Page


def models_router(models: ModelCatalog) -> APIRouter:
    """Return what every gateway serves, also one without the control plane."""
    routes = APIRouter(prefix="/v1/models", tags=["catalog"])

    @routes.get("")
    async def listing(tenant: CurrentTenant) -> ModelList:
        return ModelList(data=[*await models.list_models(tenant.organization)])

    @routes.get("/{name:path}", response_model_exclude_none=True)
    async def one(tenant: CurrentTenant, name: str) -> ModelDetails:
        """Show one model; an alias answers as what it stands for."""
        return await models.get(tenant.organization, name)

    return routes


def tenant_router(
    models: ModelCatalog, adapters: AdapterCatalog, store: CatalogStore, bases: BaseModels, push: CatalogPush
) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["catalog"])

    @routes.delete("/models/{name:path}")
    async def delete(tenant: CurrentTenant, name: str) -> ModelDeleted:
        """Delete a fine-tune of the caller's organization, for ever."""
        await adapters.delete(tenant.organization, name)
        return ModelDeleted(id=name)

    @routes.get("/model_aliases")
    async def aliases(tenant: CurrentTenant) -> Page[AliasView]:
        found = await store.aliases(tenant.organization)
        return Page[AliasView].of(found, len(found))

    @routes.post("/model_aliases")
    async def set_alias(tenant: CurrentTenant, body: NewAlias) -> AliasView:
        """Let a name of the organization's own stand for a model; replies name the model itself."""
        if bases.get(body.alias) is not None:
            raise Conflict(f"`{body.alias}` is the name of a model.", param="alias")
        resolved = await models.resolve(tenant.organization, body.model)
        adapter = None if resolved.adapter is None else resolved.adapter.id
        alias, messages = await store.set_alias(tenant.organization, body.alias, model=resolved.name, adapter=adapter)
        await push.changed(tenant.organization, messages)
        return alias

    @routes.delete("/model_aliases/{alias}")
    async def delete_alias(tenant: CurrentTenant, alias: str) -> AliasDeleted:
        await push.changed(tenant.organization, await store.delete_alias(tenant.organization, alias))
        return AliasDeleted(id=alias)

    return routes
