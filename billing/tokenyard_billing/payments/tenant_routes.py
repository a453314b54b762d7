"""A tenant's own payments, ways to pay, and credit that it buys."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import random_text
from tokenyard.core.money import InexactAmount, from_dollars
from tokenyard.web.auth import BillingTenant, FreshBillingTenant
from tokenyard.web.pages import After, Page
from tokenyard.web.request_guard import NO_NUL
from tokenyard_billing.payments.methods import PaymentMethods
from tokenyard_billing.payments.store import PaymentStore
from tokenyard_billing.payments.top_ups import PayBy, TopUps
from tokenyard_billing.payments.views import PaymentMethodView, PaymentSetupView, PaymentView, RemovedMethodView
from tokenyard_billing.views import ListSize


class TopUpBody(BaseModel, extra="forbid", coerce_numbers_to_str=True):
    """Whole cents; `by` says where it is paid. With the same `idempotency_key` it is bought once."""

    amount_dollars: Annotated[str, Field(max_length=32)]
    by: PayBy = PayBy.CHECKOUT
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=100, pattern=NO_NUL)


def router(store: PaymentStore, methods: PaymentMethods, top_ups: TopUps) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])
    _method_routes(routes, methods)

    @routes.get("/payments")
    async def own_payments(tenant: BillingTenant, after: After = None, limit: ListSize = 100) -> Page[PaymentView]:
        found = await store.payments(tenant.organization, after=after, limit=limit + 1)
        return Page[PaymentView].of([PaymentView.model_validate(one) for one in found], limit)

    @routes.get("/payments/{payment}")
    async def own_payment(tenant: BillingTenant, payment: str) -> PaymentView:
        return PaymentView.model_validate(await store.payment(tenant.organization, payment))

    @routes.post("/credit/top_ups")
    async def top_up(tenant: FreshBillingTenant, body: TopUpBody) -> PaymentView:
        """Buy credit: on the page at `checkout_url`, or by the stored method, which is charged within seconds."""
        try:
            amount = from_dollars(body.amount_dollars)
        except InexactAmount as error:
            raise InvalidRequest(str(error), param="amount_dollars") from error
        bought = await top_ups.buy(
            tenant.organization,
            amount,
            body.by,
            idempotency_key=body.idempotency_key or f"once_{random_text()}",
            actor=tenant.key,
        )
        return PaymentView.model_validate(bought)

    return routes


def _method_routes(routes: APIRouter, methods: PaymentMethods) -> None:
    @routes.get("/payment_methods")
    async def own_methods(tenant: BillingTenant) -> Page[PaymentMethodView]:
        found = await methods.listed(tenant.organization)
        return Page[PaymentMethodView].of([PaymentMethodView.of_listed(one) for one in found], len(found))

    @routes.post("/payment_methods/setup")
    async def set_up(tenant: FreshBillingTenant) -> PaymentSetupView:
        """Return a page on which a method is set up; invoices are charged to it from then on."""
        return PaymentSetupView.of_page(await methods.set_up(tenant.organization))

    @routes.post("/payment_methods/{method}/default")
    async def choose(tenant: FreshBillingTenant, method: str) -> PaymentMethodView:
        """Charge this method from now on; what could not be charged to another is tried again at once."""
        return PaymentMethodView.of_listed(await methods.choose(tenant.organization, method, actor=tenant.key))

    @routes.delete("/payment_methods/{method}")
    async def remove(tenant: FreshBillingTenant, method: str) -> RemovedMethodView:
        await methods.remove(tenant.organization, method, actor=tenant.key)
        return RemovedMethodView(id=method)
