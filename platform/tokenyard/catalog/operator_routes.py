"""Operator routes of the catalog: base models and everybody's adapters."""

from typing import Annotated

from fastapi import APIRouter, Query

from tokenyard.catalog.adapters.adapter_catalog import AdapterCatalog
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.tables import AdapterState
from tokenyard.catalog.views import AdapterView, BaseModelView
from tokenyard.core.clock import Clock
from tokenyard.core.ids import AdapterId
from tokenyard.core.money import PriceLookup
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page, PageSize


def operator_router(
    store: CatalogOperatorStore, adapters: AdapterCatalog, bases: BaseModels, prices: PriceLookup, clock: Clock
) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["catalog"])

    @routes.get("/models")
    async def models(_operator: CurrentOperator) -> Page[BaseModelView]:
        """List the base models of this installation, with their prices and how many adapters stand on each."""
        counts = await store.counts()
        at_ms = clock.now_ms()
        found = [
            BaseModelView.of(base, prices.price(base.id, fine_tuned=False, at_ms=at_ms), counts.get(base.id, {}))
            for base in bases.all()
        ]
        return Page[BaseModelView].of(found, len(found))

    @routes.get("/adapters")
    async def listing(
        _operator: CurrentOperator,
        organization: Annotated[str | None, Query(max_length=96)] = None,
        state: AdapterState | None = None,
        after: After = None,
        limit: PageSize = 20,
    ) -> Page[AdapterView]:
        """List adapters of all organizations, newest first; `organization` is an id."""
        found = await store.adapters(organization=organization, state=state, after=after, limit=limit + 1)
        return Page[AdapterView].of(found, limit)

    @routes.delete("/adapters/{adapter}")
    async def retire(operator: CurrentOperator, adapter: str) -> AdapterView:
        """Take an adapter out of service, for ever: it gets no new request, and in the end its files are deleted."""
        found = await store.adapter(AdapterId(adapter))
        await adapters.retire(found.organization_id, found.id, actor=operator.key, reason="retired by the operator")
        return await store.adapter(found.id)

    return routes
