"""Tenant routes of the catalog: the models an organization may call, its fine-tunes' ends, its aliases."""

from typing import Annotated

from fastapi import APIRouter, Depends

from tokenyard.catalog.adapters import AdapterCatalog
from tokenyard.catalog.base_models import BaseModels
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.push import CatalogPush
from tokenyard.catalog.store import CatalogStore
from tokenyard.catalog.views import AliasDeleted, AliasView, ModelDeleted, ModelDetails, ModelList, NewAlias
from tokenyard.core.errors import Conflict
from tokenyard.core.principal import KeyScope, Principal
from tokenyard.web.auth import AnyTenant, TenantWith
from tokenyard.web.pages import Page

Tenant = Annotated[Principal, Depends(TenantWith(KeyScope.FINE_TUNING))]
FreshTenant = Annotated[Principal, Depends(TenantWith(KeyScope.FINE_TUNING, fresh=True))]


def models_router(models: ModelCatalog) -> APIRouter:
    """Return what every gateway serves, also one without the control plane."""
    routes = APIRouter(prefix="/v1/models", tags=["catalog"])

    @routes.get("")
    async def listing(tenant: AnyTenant) -> ModelList:
        found = await models.list_models(tenant.organization)
        return ModelList(data=[model for model in found if tenant.who_denies(model.id) is None])

    @routes.get("/{name:path}", response_model_exclude_none=True)
    async def one(tenant: AnyTenant, name: str) -> ModelDetails:
        """Show one model; an alias answers as what it stands for."""
        found = await models.get(tenant.organization, name)
        tenant.check_model(found.id)
        return found

    return routes


def tenant_router(
    models: ModelCatalog, adapters: AdapterCatalog, store: CatalogStore, bases: BaseModels, push: CatalogPush
) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["catalog"])

    @routes.delete("/models/{name:path}")
    async def delete(tenant: FreshTenant, name: str) -> ModelDeleted:
        """Delete a fine-tune of the caller's organization, for ever."""
        await adapters.delete(tenant.organization, name)
        return ModelDeleted(id=name)

    @routes.get("/model_aliases")
    async def aliases(tenant: Tenant) -> Page[AliasView]:
        found = await store.aliases(tenant.organization)
        return Page[AliasView].of(found, len(found))

    @routes.post("/model_aliases")
    async def set_alias(tenant: FreshTenant, body: NewAlias) -> AliasView:
        """Let a name of the organization's own stand for a model; replies name the model itself."""
        if bases.get(body.alias) is not None:
            raise Conflict(f"`{body.alias}` is the name of a model.", param="alias")
        resolved = await models.resolve(tenant.organization, body.model)
        tenant.check_model(resolved.name)
        adapter = None if resolved.adapter is None else resolved.adapter.id
        alias, messages = await store.set_alias(tenant.organization, body.alias, model=resolved.name, adapter=adapter)
        await push.changed(tenant.organization, messages)
        return alias

    @routes.delete("/model_aliases/{alias}")
    async def delete_alias(tenant: FreshTenant, alias: str) -> AliasDeleted:
        await push.changed(tenant.organization, await store.delete_alias(tenant.organization, alias))
        return AliasDeleted(id=alias)

    return routes
