"""A tenant's own invoices and credit notes as documents."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from tokenyard.web.auth import BillingTenant
from tokenyard_billing.documents.files import BillFiles, PdfResponse
from tokenyard_billing.documents.store import BillStore


def router(bills: BillStore, files: BillFiles) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/invoices/{invoice}/pdf", response_class=PdfResponse)
    async def own_pdf(tenant: BillingTenant, invoice: str) -> PdfResponse:
        """Return an invoice as PDF; a draft is marked as one."""
        return await files.pdf(await bills.bill(tenant.organization, invoice))

    @routes.get("/invoices/{invoice}/html", response_class=HTMLResponse)
    async def own_page(tenant: BillingTenant, invoice: str) -> HTMLResponse:
        """Return an invoice as a page that says what its PDF does."""
        return await files.html(await bills.bill(tenant.organization, invoice))

    @routes.get("/credit_notes/{credit_note}/pdf", response_class=PdfResponse)
    async def own_credit_note_pdf(tenant: BillingTenant, credit_note: str) -> PdfResponse:
        """Return a credit note as PDF."""
        return await files.pdf(await bills.credit_note(tenant.organization, credit_note))

    @routes.get("/credit_notes/{credit_note}/html", response_class=HTMLResponse)
    async def own_credit_note_page(tenant: BillingTenant, credit_note: str) -> HTMLResponse:
        """Return a credit note as a page that says what its PDF does."""
        return await files.html(await bills.credit_note(tenant.organization, credit_note))

    return routes
