"""Credit that a tenant buys, once or by itself."""

from fastapi import APIRouter

from tokenyard.core.ids import random_text
from tokenyard.web.auth import BillingTenant, FreshBillingTenant
from tokenyard_billing.payments.views import PaymentView
from tokenyard_billing.top_ups.automatic import AutomaticTopUps
from tokenyard_billing.top_ups.buying import TopUps
from tokenyard_billing.top_ups.views import (
    AutomaticTopUpBody,
    AutomaticTopUpView,
    DeletedAutomaticTopUpView,
    TopUpBody,
)
from tokenyard_billing.views import amount_of


def router(top_ups: TopUps, automatic: AutomaticTopUps) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization/credit", tags=["billing"])

    @routes.post("/top_ups")
    async def top_up(tenant: FreshBillingTenant, body: TopUpBody) -> PaymentView:
        """Buy credit: on the page at `checkout_url`, or by the stored method, which is charged within seconds."""
        bought = await top_ups.buy(
            tenant.organization,
            amount_of(body.amount_dollars, "amount_dollars"),
            body.by,
            idempotency_key=body.idempotency_key or f"once_{random_text()}",
            actor=tenant.key,
        )
        return PaymentView.model_validate(bought)

    @routes.get("/automatic_top_up")
    async def own_automatic(tenant: BillingTenant) -> AutomaticTopUpView:
        return AutomaticTopUpView.model_validate(await automatic.get(tenant.organization))

    @routes.put("/automatic_top_up")
    async def set_automatic(tenant: FreshBillingTenant, body: AutomaticTopUpBody) -> AutomaticTopUpView:
        """Let the stored method be charged whenever less than the threshold is left."""
        stated = await automatic.state(
            tenant.organization,
            threshold=amount_of(body.threshold_dollars, "threshold_dollars"),
            amount=amount_of(body.amount_dollars, "amount_dollars"),
            month_limit=amount_of(body.month_limit_dollars, "month_limit_dollars"),
            actor=tenant.key,
        )
        return AutomaticTopUpView.model_validate(stated)

    @routes.delete("/automatic_top_up")
    async def stop_automatic(tenant: FreshBillingTenant) -> DeletedAutomaticTopUpView:
        await automatic.stop(tenant.organization, actor=tenant.key)
        return DeletedAutomaticTopUpView(id=tenant.organization)

    return routes
