"""Invoices of all organizations as documents, for operators."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from tokenyard.web.auth import CurrentOperator
from tokenyard_billing.documents.files import BillFiles, PdfResponse
from tokenyard_billing.documents.operator_store import BillOperatorStore


def router(bills: BillOperatorStore, files: BillFiles) -> APIRouter:
    routes = APIRouter(prefix="/admin/invoices", tags=["billing"])

    @routes.get("/{invoice}/pdf", response_class=PdfResponse)
    async def pdf(_operator: CurrentOperator, invoice: str) -> PdfResponse:
        """Return an invoice as PDF; a draft is marked as one."""
        return await files.pdf(await bills.bill(invoice))

    @routes.get("/{invoice}/html", response_class=HTMLResponse)
    async def page(_operator: CurrentOperator, invoice: str) -> HTMLResponse:
        """Return an invoice as a page that says what its PDF does."""
        return await files.html(await bills.bill(invoice))

    return routes
