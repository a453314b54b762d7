"""Invoices for operators: to read, and to end as paid, void or uncollectible."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenyard.core.clock import Clock
from tokenyard.core.ids import random_text
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard.web.request_guard import NO_NUL
from tokenyard_billing.invoicing.operator_store import InvoiceOperatorStore
from tokenyard_billing.invoicing.settling import InvoiceSettlements
from tokenyard_billing.invoicing.store import InvoiceState, InvoiceStore
from tokenyard_billing.invoicing.views import InvoiceHead, InvoiceView
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.views import IdempotencyKey, ListSize, Month


class PaymentBody(BaseModel, extra="forbid"):
    """All that is due was paid; `reference` is how the bank or whoever else names the payment."""

    reference: str = Field(min_length=1, max_length=500, pattern=NO_NUL)
    idempotency_key: IdempotencyKey | None = None


class ReasonBody(BaseModel, extra="forbid"):
    """Why; it stands in the journal, and the organization reads it."""

    reason: str = Field(min_length=1, max_length=500, pattern=NO_NUL)


def router(
    find: OrganizationLookup,
    invoices: InvoiceStore,
    store: InvoiceOperatorStore,
    settlements: InvoiceSettlements,
    clock: Clock,
) -> APIRouter:
    """Return the routes; an organization is named by its id or slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])
    _reading_routes(routes, find, invoices, store, clock)
    _settling_routes(routes, store, settlements, clock)
    return routes


def _reading_routes(
    routes: APIRouter, find: OrganizationLookup, invoices: InvoiceStore, store: InvoiceOperatorStore, clock: Clock
) -> None:
    @routes.get("/invoices")
    async def heads(
        _operator: CurrentOperator,
        month: Month = None,
        organization: str | None = None,
        state: InvoiceState | None = None,
        after: After = None,
        limit: ListSize = 100,
    ) -> Page[InvoiceHead]:
        """List invoices as they were last drafted or issued, the newest month first."""
        owner = None if organization is None else await find(organization)
        now_ms = clock.now_ms()
        found = await store.heads(
            organization=owner, month=month, state=state, now_ms=now_ms, after=after, limit=limit + 1
        )
        return Page[InvoiceHead].of([InvoiceHead.at(one, now_ms) for one in found], limit)

    @routes.get("/invoices/{invoice}")
    async def one(_operator: CurrentOperator, invoice: str) -> InvoiceView:
        """Return an invoice as it was last drafted or issued."""
        return InvoiceView.at(await store.invoice(invoice), clock.now_ms())

    @routes.get("/organizations/{organization}/invoices")
    async def of_organization(
        _operator: CurrentOperator,
        organization: str,
        *,
        period: Month = None,
        month: Month = None,
        state: InvoiceState | None = None,
        after: After = None,
        limit: ListSize = 100,
    ) -> Page[InvoiceView]:
        """List an organization's invoices as they were last drafted or issued; `period` (or `month`) names one."""
        owner, now_ms = await find(organization), clock.now_ms()
        found = await invoices.invoices(
            owner, now_ms=now_ms, period=period or month, state=state, after=after, limit=limit + 1
        )
        return Page[InvoiceView].of([InvoiceView.at(one, now_ms) for one in found], limit)


def _settling_routes(
    routes: APIRouter, store: InvoiceOperatorStore, settlements: InvoiceSettlements, clock: Clock
) -> None:
    @routes.post("/invoices/{invoice}/pay")
    async def pay(operator: CurrentOperator, invoice: str, body: PaymentBody) -> InvoiceView:
        """Note that all that is due was paid; with an idempotency key, once however often it is sent."""
        key = body.idempotency_key or f"once_{random_text()}"
        await settlements.pay(invoice, reference=body.reference, idempotency_key=key, actor=operator.key)
        return InvoiceView.at(await store.invoice(invoice), clock.now_ms())

    @routes.post("/invoices/{invoice}/void")
    async def void(operator: CurrentOperator, invoice: str, body: ReasonBody) -> InvoiceView:
        """Claim nothing by an open invoice any more; what was used is not billed anew."""
        await settlements.void(invoice, reason=body.reason, actor=operator.key)
        return InvoiceView.at(await store.invoice(invoice), clock.now_ms())

    @routes.post("/invoices/{invoice}/write_off")
    async def write_off(operator: CurrentOperator, invoice: str, body: ReasonBody) -> InvoiceView:
        """Give up what is due by an open invoice: it is uncollectible."""
        await settlements.write_off(invoice, reason=body.reason, actor=operator.key)
        return InvoiceView.at(await store.invoice(invoice), clock.now_ms())
