"""A tenant's own invoices."""

from fastapi import APIRouter

from tokenyard.core.clock import Clock
from tokenyard.web.auth import BillingTenant
from tokenyard.web.pages import After, Page
from tokenyard_billing.invoicing.store import InvoiceState, InvoiceStore
from tokenyard_billing.invoicing.views import InvoiceView
from tokenyard_billing.views import ListSize, Month


def router(invoices: InvoiceStore, clock: Clock) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/invoices")
    async def listing(
        tenant: BillingTenant,
        period: Month = None,
        state: InvoiceState | None = None,
        after: After = None,
        limit: ListSize = 100,
    ) -> Page[InvoiceView]:
        """List the invoices as they were last drafted or issued, the newest first; `period` names one."""
        now_ms = clock.now_ms()
        found = await invoices.invoices(
            tenant.organization, now_ms=now_ms, period=period, state=state, after=after, limit=limit + 1
        )
        return Page[InvoiceView].of([InvoiceView.at(one, now_ms) for one in found], limit)

    return routes
