"""Alerts for operators."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard_billing.alerts.store import BudgetAlertStore
from tokenyard_billing.alerts.views import BudgetAlertView
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.views import ListSize, Month


def router(find: OrganizationLookup, store: BudgetAlertStore) -> APIRouter:
    """Return the routes; `{organization}` is an id or a slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/organizations/{organization}/budget_alerts")
    async def alerts(
        _operator: CurrentOperator, organization: str, month: Month = None, after: After = None, limit: ListSize = 100
    ) -> Page[BudgetAlertView]:
        found = await store.alerts(await find(organization), month=month, after=after, limit=limit + 1)
        return Page[BudgetAlertView].of([BudgetAlertView.model_validate(one) for one in found], limit)

    return routes
