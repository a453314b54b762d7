"""A tenant's own alerts."""

from fastapi import APIRouter

from tokenyard.web.auth import BillingTenant
from tokenyard.web.pages import After, Page
from tokenyard_billing.alerts.store import BudgetAlertStore
from tokenyard_billing.alerts.views import BudgetAlertView
from tokenyard_billing.views import ListSize, Month


def router(store: BudgetAlertStore) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/budget_alerts")
    async def own_alerts(
        tenant: BillingTenant, month: Month = None, after: After = None, limit: ListSize = 100
    ) -> Page[BudgetAlertView]:
        """List when so many percents of a budget were used, the newest first."""
        found = await store.alerts(tenant.organization, month=month, after=after, limit=limit + 1)
        return Page[BudgetAlertView].of([BudgetAlertView.model_validate(one) for one in found], limit)

    return routes
