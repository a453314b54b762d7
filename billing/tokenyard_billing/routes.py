"""Billing's routes for operators and tenants; usage in OpenAI's shapes is in `usage_routes`."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId, random_text
from tokenyard.core.money import InexactAmount, NanoDollars, from_dollars
from tokenyard.web.auth import CurrentOperator, CurrentTenant
from tokenyard_billing.invoicing.invoices import InvoiceStore
from tokenyard_billing.periods import checked_period
from tokenyard_billing.ports import OrganizationDirectory
from tokenyard_billing.proof.operator_store import BillingOperatorStore
from tokenyard_billing.proof.reconcile import Reconciler
from tokenyard_billing.shown import shown_balance, shown_grant, shown_invoice, shown_reconciliation, shown_usage
from tokenyard_billing.usage.store import UsageStore
from tokenyard_billing.wallets.wallet import Wallet

Period = Annotated[str | None, Query(max_length=7)]
Newest = Annotated[int, Query(ge=1, le=1000)]


class CreditBody(BaseModel):
    """`amount_dollars` as text or number, or `amount` in nano-dollars: one of the two."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    amount_dollars: str | None = None
    amount: Annotated[int | None, Field(strict=True)] = None
    reason: str = Field(min_length=1, max_length=500)
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=128)

    def nano_dollars(self) -> NanoDollars:
        """Return the amount.

        Raises:
            InvalidRequest: none or two amounts, or not a whole number of nano-dollars.
        """
        if (self.amount_dollars is None) == (self.amount is None):
            raise InvalidRequest("Give either amount_dollars or amount (nano-dollars).", param="amount_dollars")
        try:
            return NanoDollars(self.amount) if self.amount is not None else from_dollars(self.amount_dollars or "")
        except InexactAmount as error:
            raise InvalidRequest(str(error), param="amount_dollars") from error


class DeadEventBody(BaseModel):
    """Names a dead event, as the list of them does."""

    model_config = ConfigDict(extra="forbid")

    stream: str = Field(max_length=64)
    entry: str = Field(max_length=48)


def router(invoices: InvoiceStore, wallet: Wallet) -> APIRouter:
    """Return what a tenant sees of its own money."""
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/invoices")
    async def listing(tenant: CurrentTenant, period: Period = None) -> dict[str, Any]:
        return await _invoices(invoices, tenant.organization, period)

    @routes.get("/balance")
    async def balance(tenant: CurrentTenant) -> dict[str, Any]:
        return shown_balance(*await wallet.balances(tenant.organization))

    return routes


def admin_router(
    *,
    organizations: OrganizationDirectory,
    invoices: InvoiceStore,
    usage: UsageStore,
    wallet: Wallet,
    store: BillingOperatorStore,
    reconciler: Reconciler,
    clock: Clock,
) -> APIRouter:
    """Return the operator's routes; `{organization}` is an id or a slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])
    _credit_routes(routes, organizations, wallet)
    _bill_routes(routes, organizations, invoices, usage, clock)

    @routes.get("/requests/{request}")
    async def story(_operator: CurrentOperator, request: str) -> dict[str, Any]:
        """Tell a request's or a training job's whole story."""
        return await store.request(request)

    @routes.api_route("/reconcile", methods=["GET", "POST"])
    async def reconcile(_operator: CurrentOperator) -> dict[str, Any]:
        """Check the invariants of the money; it changes nothing."""
        return shown_reconciliation(await reconciler.reconcile())

    @routes.get("/alarms")
    async def alarms(_operator: CurrentOperator, limit: Newest = 100) -> dict[str, Any]:
        return {"object": "list", "data": await store.alarms(limit)}

    @routes.get("/dead_events")
    async def dead_events(_operator: CurrentOperator, limit: Newest = 100) -> dict[str, Any]:
        return {"object": "list", "data": await store.dead_events(limit)}

    @routes.post("/dead_events/send_again")
    async def send_again(_operator: CurrentOperator, body: DeadEventBody) -> dict[str, Any]:
        """Put a dead event back on its stream, after its cause was mended."""
        await store.send_again(body.stream, body.entry)
        return {"object": "dead_event", "stream": body.stream, "entry": body.entry, "sent_again": True}

    return routes


def _credit_routes(routes: APIRouter, organizations: OrganizationDirectory, wallet: Wallet) -> None:
    @routes.post("/organizations/{organization}/credits")
    async def grant(operator: CurrentOperator, organization: str, body: CreditBody) -> dict[str, Any]:
        """Grant credit; with an idempotency key, once however often it is sent."""
        owner = (await organizations.organization(organization)).id
        granted = await wallet.grant(
            owner,
            body.nano_dollars(),
            reason=body.reason,
            actor=operator.key,
            idempotency_key=body.idempotency_key or f"once_{random_text()}",
        )
        return shown_grant(granted)

    @routes.get("/organizations/{organization}/credits")
    async def grants(_operator: CurrentOperator, organization: str) -> dict[str, Any]:
        found = await wallet.grants((await organizations.organization(organization)).id)
        return {"object": "list", "data": [shown_grant(grant) for grant in found]}

    @routes.get("/organizations/{organization}/balance")
    async def balance(_operator: CurrentOperator, organization: str) -> dict[str, Any]:
        return shown_balance(*await wallet.balances((await organizations.organization(organization)).id))


def _bill_routes(
    routes: APIRouter, organizations: OrganizationDirectory, invoices: InvoiceStore, usage: UsageStore, clock: Clock
) -> None:
    @routes.get("/organizations/{organization}/invoices")
    async def listing(
        _operator: CurrentOperator, organization: str, period: Period = None, month: Period = None
    ) -> dict[str, Any]:
        """List the invoices, drawn up to now; `period` (or `month`) names one."""
        return await _invoices(invoices, (await organizations.organization(organization)).id, period or month)

    @routes.get("/organizations/{organization}/usage")
    async def used(_operator: CurrentOperator, organization: str, month: Period = None) -> dict[str, Any]:
        """Sum a UTC month's usage by model; default: this month."""
        owner = (await organizations.organization(organization)).id
        wanted = checked_period(month or f"{datetime.fromtimestamp(clock.now_ms() / 1000, UTC):%Y-%m}")
        return {"object": "list", "data": [shown_usage(found) for found in await usage.month(owner, wanted)]}


async def _invoices(invoices: InvoiceStore, organization: OrganizationId, period: str | None) -> dict[str, Any]:
    asked = None if period is None else checked_period(period)
    wanted = [found for found in await invoices.periods(organization) if asked in {None, found}]
    data = [shown_invoice(await invoices.draw(organization, found)) for found in wanted]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": False}
