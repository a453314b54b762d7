"""A tenant's own invoices."""

from fastapi import APIRouter

from tokenyard.web.auth import BillingTenant
from tokenyard.web.pages import After, Page
from tokenyard_billing.invoicing.store import InvoiceStore
from tokenyard_billing.invoicing.views import InvoiceView
from tokenyard_billing.views import ListSize, Month


def router(invoices: InvoiceStore) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/invoices")
    async def listing(
        tenant: BillingTenant, period: Month = None, after: After = None, limit: ListSize = 100
    ) -> Page[InvoiceView]:
        """List the invoices as they were last drafted, the newest first; `period` names one."""
        found = await invoices.invoices(tenant.organization, period=period, after=after, limit=limit + 1)
        return Page[InvoiceView].of([InvoiceView.model_validate(one) for one in found], limit)

    return routes
