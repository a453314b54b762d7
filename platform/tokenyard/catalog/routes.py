"""Routes of the catalog: deleting fine-tunes, aliases, and what operators see. The gateway itself lists models."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from tokenyard.catalog.adapters import AdapterCatalog
from tokenyard.catalog.base_models import BaseModels
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.ports import PriceList
from tokenyard.catalog.schemas import AliasBody, shown_adapter, shown_alias, shown_base
from tokenyard.catalog.store import CatalogStore
from tokenyard.catalog.views import AdapterState
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict
from tokenyard.web.auth import CurrentOperator, CurrentTenant
from tokenyard.web.pages import After, PageSize, page

OrganizationFilter = Annotated[str | None, Query(max_length=96)]


def router(models: ModelCatalog, adapters: AdapterCatalog, store: CatalogStore, bases: BaseModels) -> APIRouter:
    """Return the tenants' routes."""
    routes = APIRouter(prefix="/v1", tags=["catalog"])

    @routes.delete("/models/{name:path}")
    async def delete(tenant: CurrentTenant, name: str) -> dict[str, Any]:
        """Delete a fine-tune of the caller's organization, for ever."""
        await adapters.delete(tenant.organization, name)
        return {"id": name, "object": "model", "deleted": True}

    @routes.get("/model_aliases")
    async def aliases(tenant: CurrentTenant) -> dict[str, Any]:
        found = [shown_alias(alias) for alias in await store.aliases(tenant.organization)]
        return page(found, len(found))

    @routes.post("/model_aliases")
    async def set_alias(tenant: CurrentTenant, body: AliasBody) -> dict[str, Any]:
        """Let a name of the organization's own stand for a model; replies name the model itself."""
        if bases.get(body.alias) is not None:
            raise Conflict(f"`{body.alias}` is the name of a model.", param="alias")
        resolved = await models.resolve(tenant.organization, body.model)
        adapter = None if resolved.adapter is None else resolved.adapter.id
        alias = await store.set_alias(tenant.organization, body.alias, model=resolved.name, adapter=adapter)
        models.forget(tenant.organization)
        return shown_alias(alias)

    @routes.delete("/model_aliases/{alias}")
    async def delete_alias(tenant: CurrentTenant, alias: str) -> dict[str, Any]:
        await store.delete_alias(tenant.organization, alias)
        models.forget(tenant.organization)
        return {"id": alias, "object": "model_alias", "deleted": True}

    return routes


def admin_router(store: CatalogOperatorStore, bases: BaseModels, prices: PriceList, clock: Clock) -> APIRouter:
    """Return the operator's routes."""
    routes = APIRouter(prefix="/admin", tags=["catalog"])

    @routes.get("/models")
    async def models(_operator: CurrentOperator) -> dict[str, Any]:
        """List the base models of this installation, with their prices and how many adapters stand on each."""
        counts = await store.counts()
        at_ms = clock.now_ms()
        shown = [
            shown_base(base, prices.price(base.id, fine_tuned=False, at_ms=at_ms), counts.get(base.id, {}))
            for base in bases.all()
        ]
        return page(shown, len(shown))

    @routes.get("/adapters")
    async def adapters(
        _operator: CurrentOperator,
        organization: OrganizationFilter = None,
        state: AdapterState | None = None,
        after: After = None,
        limit: PageSize = 20,
    ) -> dict[str, Any]:
        """List adapters of all organizations, newest first; `organization` is an id."""
        found = await store.adapters(organization=organization, state=state, after=after, limit=limit + 1)
        return page([shown_adapter(adapter) for adapter in found], limit)

    return routes
