"""A tenant's own invoices."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentTenant
from tokenyard.web.pages import Page
from tokenyard_billing.invoicing.store import InvoiceStore
from tokenyard_billing.invoicing.views import InvoiceView
from tokenyard_billing.views import Month


def router(invoices: InvoiceStore) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/invoices")
    async def listing(tenant: CurrentTenant, period: Month = None) -> Page[InvoiceView]:
        """List the invoices, drawn up to now, the newest first; `period` names one."""
        found = [InvoiceView.model_validate(one) for one in await invoices.drawn(tenant.organization, period)]
        return Page[InvoiceView].of(found, len(found))

    return routes
