"""Payments for operators."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard_billing.payments.operator_store import PaymentOperatorStore
from tokenyard_billing.payments.views import PaymentState, PaymentView
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.views import ListSize


def router(find: OrganizationLookup, store: PaymentOperatorStore) -> APIRouter:
    """Return the routes; an organization is named by its id or slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/payments")
    async def payments(
        _operator: CurrentOperator,
        organization: str | None = None,
        state: PaymentState | None = None,
        after: After = None,
        limit: ListSize = 100,
    ) -> Page[PaymentView]:
        """List payments through the provider, the newest first."""
        owner = None if organization is None else await find(organization)
        found = await store.payments(organization=owner, state=state, after=after, limit=limit + 1)
        return Page[PaymentView].of([PaymentView.model_validate(one) for one in found], limit)

    return routes
