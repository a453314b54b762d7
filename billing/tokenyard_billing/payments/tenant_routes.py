"""A tenant's own payments, and ways to pay."""

from fastapi import APIRouter

from tokenyard.web.auth import BillingTenant, FreshBillingTenant
from tokenyard.web.pages import After, Page
from tokenyard_billing.payments.methods import PaymentMethods
from tokenyard_billing.payments.store import PaymentStore
from tokenyard_billing.payments.views import PaymentMethodView, PaymentSetupView, PaymentView, RemovedMethodView
from tokenyard_billing.views import ListSize


def router(store: PaymentStore, methods: PaymentMethods) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])
    _method_routes(routes, methods)

    @routes.get("/payments")
    async def own_payments(tenant: BillingTenant, after: After = None, limit: ListSize = 100) -> Page[PaymentView]:
        found = await store.payments(tenant.organization, after=after, limit=limit + 1)
        return Page[PaymentView].of([PaymentView.model_validate(one) for one in found], limit)

    @routes.get("/payments/{payment}")
    async def own_payment(tenant: BillingTenant, payment: str) -> PaymentView:
        return PaymentView.model_validate(await store.payment(tenant.organization, payment))

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
