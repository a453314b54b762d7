"""The proofs of a tenant's own invoices."""

from fastapi import APIRouter
from sqlalchemy import select

from tokenyard.web.auth import BillingTenant
from tokenyard_billing.invoice_proofs.files import ProofFiles, ProofResponse
from tokenyard_billing.invoice_tables import Invoice


def router(files: ProofFiles) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/invoices/{invoice}/proof", response_class=ProofResponse)
    async def own_proof(tenant: BillingTenant, invoice: str) -> ProofResponse:
        """Return a zip file with all that proves an issued invoice, for `verify_invoice.py`."""
        own = (Invoice.organization == tenant.organization) & (Invoice.id == invoice)
        return await files.proof(select(Invoice).where(own))

    return routes
