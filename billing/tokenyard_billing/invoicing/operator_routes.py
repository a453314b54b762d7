"""Invoices for operators."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard_billing.invoicing.operator_store import InvoiceOperatorStore
from tokenyard_billing.invoicing.store import InvoiceStore
from tokenyard_billing.invoicing.views import InvoiceHead, InvoiceView
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.views import ListSize, Month


def router(find: OrganizationLookup, invoices: InvoiceStore, store: InvoiceOperatorStore) -> APIRouter:
    """Return the routes; an organization is named by its id or slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/invoices")
    async def heads(
        _operator: CurrentOperator,
        month: Month = None,
        organization: str | None = None,
        after: After = None,
        limit: ListSize = 100,
    ) -> Page[InvoiceHead]:
        """List invoices as they were last drafted, the newest month first."""
        owner = None if organization is None else await find(organization)
        found = await store.heads(organization=owner, month=month, after=after, limit=limit + 1)
        return Page[InvoiceHead].of([InvoiceHead.model_validate(one) for one in found], limit)

    @routes.get("/invoices/{invoice}")
    async def one(_operator: CurrentOperator, invoice: str) -> InvoiceView:
        """Return an invoice as it was last drafted."""
        return InvoiceView.model_validate(await store.invoice(invoice))

    @routes.get("/organizations/{organization}/invoices")
    async def of_organization(
        _operator: CurrentOperator,
        organization: str,
        period: Month = None,
        month: Month = None,
        after: After = None,
        limit: ListSize = 100,
    ) -> Page[InvoiceView]:
        """List an organization's invoices as they were last drafted; `period` (or `month`) names one."""
        owner = await find(organization)
        found = await invoices.invoices(owner, period=period or month, after=after, limit=limit + 1)
        return Page[InvoiceView].of([InvoiceView.model_validate(one) for one in found], limit)

    return routes
