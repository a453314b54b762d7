"""A tenant's own credit notes."""

from fastapi import APIRouter

from tokenyard.web.auth import BillingTenant
from tokenyard.web.pages import After, Page
from tokenyard_billing.corrections.store import CreditNoteStore
from tokenyard_billing.corrections.views import CreditNoteView
from tokenyard_billing.views import ListSize


def router(notes: CreditNoteStore) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/credit_notes")
    async def listing(
        tenant: BillingTenant, invoice: str | None = None, after: After = None, limit: ListSize = 100
    ) -> Page[CreditNoteView]:
        """List what was taken back of issued invoices, the newest first; `invoice` names one."""
        found = await notes.credit_notes(tenant.organization, invoice=invoice, after=after, limit=limit + 1)
        return Page[CreditNoteView].of([CreditNoteView.model_validate(note) for note in found], limit)

    @routes.get("/credit_notes/{credit_note}")
    async def one(tenant: BillingTenant, credit_note: str) -> CreditNoteView:
        return CreditNoteView.model_validate(await notes.credit_note(tenant.organization, credit_note))

    return routes
