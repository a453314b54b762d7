"""The seals, for a tenant to write down."""

from fastapi import APIRouter

from tokenyard.web.auth import BillingTenant
from tokenyard.web.pages import Page
from tokenyard_billing.sealing.store import SealReader
from tokenyard_billing.sealing.views import Day, SealView
from tokenyard_billing.views import ListSize


def router(store: SealReader) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/seals")
    async def own_seals(_tenant: BillingTenant, after: Day = None, limit: ListSize = 100) -> Page[SealView]:
        """List the daily seals, the newest first."""
        found = await store.seals(after=after, limit=limit + 1)
        return Page[SealView].of([SealView.model_validate(one) for one in found], limit)

    return routes
