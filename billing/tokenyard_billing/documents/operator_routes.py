"""Invoices and credit notes of all organizations as documents, for operators."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from tokenyard.web.auth import CurrentOperator
from tokenyard_billing.documents.files import BillFiles, PdfResponse
from tokenyard_billing.documents.operator_store import BillOperatorStore


def router(bills: BillOperatorStore, files: BillFiles) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/invoices/{invoice}/pdf", response_class=PdfResponse)
    async def pdf(_operator: CurrentOperator, invoice: str) -> PdfResponse:
        """Return an invoice as PDF; a draft is marked as one."""
        return await files.pdf(await bills.bill(invoice))

    @routes.get("/invoices/{invoice}/html", response_class=HTMLResponse)
    async def page(_operator: CurrentOperator, invoice: str) -> HTMLResponse:
        """Return an invoice as a page that says what its PDF does."""
        return await files.html(await bills.bill(invoice))

    @routes.get("/credit_notes/{credit_note}/pdf", response_class=PdfResponse)
    async def credit_note_pdf(_operator: CurrentOperator, credit_note: str) -> PdfResponse:
        """Return a credit note as PDF."""
        return await files.pdf(await bills.credit_note(credit_note))

    @routes.get("/credit_notes/{credit_note}/html", response_class=HTMLResponse)
    async def credit_note_page(_operator: CurrentOperator, credit_note: str) -> HTMLResponse:
        """Return a credit note as a page that says what its PDF does."""
        return await files.html(await bills.credit_note(credit_note))

    return routes
