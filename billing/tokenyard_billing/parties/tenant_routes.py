"""A tenant's own billing details."""

from fastapi import APIRouter

from tokenyard.web.auth import BillingTenant, FreshBillingTenant
from tokenyard_billing.parties.party import Buyer
from tokenyard_billing.parties.store import BillingDetailsStore
from tokenyard_billing.parties.views import BillingDetailsView


def router(store: BillingDetailsStore) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/billing_details")
    async def own_details(tenant: BillingTenant) -> BillingDetailsView:
        return BillingDetailsView.model_validate(await store.get(tenant.organization))

    @routes.put("/billing_details")
    async def replace_own_details(tenant: FreshBillingTenant, body: Buyer) -> BillingDetailsView:
        """State how invoices from now on name the organization; what is left out is empty."""
        changed = await store.replace(tenant.organization, body, actor=tenant.key)
        return BillingDetailsView.model_validate(changed)

    return routes
