"""The proofs of all organizations' invoices, for operators."""

from fastapi import APIRouter
from sqlalchemy import select

from tokenyard.web.auth import CurrentOperator
from tokenyard_billing.invoice_proofs.files import ProofFiles, ProofResponse
from tokenyard_billing.invoice_tables import Invoice


def router(files: ProofFiles) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/invoices/{invoice}/proof", response_class=ProofResponse)
    async def proof(_operator: CurrentOperator, invoice: str) -> ProofResponse:
        """Return the zip file that the invoice's organization gets."""
        return await files.proof(select(Invoice).where(Invoice.id == invoice))

    return routes
