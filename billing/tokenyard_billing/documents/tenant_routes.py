"""A tenant's own invoices as documents."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from tokenyard.web.auth import BillingTenant
from tokenyard_billing.documents.files import BillFiles, PdfResponse
from tokenyard_billing.documents.store import BillStore


def router(bills: BillStore, files: BillFiles) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization/invoices", tags=["billing"])

    @routes.get("/{invoice}/pdf", response_class=PdfResponse)
    async def own_pdf(tenant: BillingTenant, invoice: str) -> PdfResponse:
        """Return an invoice as PDF; a draft is marked as one."""
        return await files.pdf(await bills.bill(tenant.organization, invoice))

    @routes.get("/{invoice}/html", response_class=HTMLResponse)
    async def own_page(tenant: BillingTenant, invoice: str) -> HTMLResponse:
        """Return an invoice as a page that says what its PDF does."""
        return await files.html(await bills.bill(tenant.organization, invoice))

    return routes
