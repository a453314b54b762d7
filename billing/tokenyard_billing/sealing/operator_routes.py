"""The seals, and their proof, for operators."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import Page
from tokenyard_billing.sealing.operator_store import SealOperatorStore
from tokenyard_billing.sealing.store import SealReader
from tokenyard_billing.sealing.views import Day, SealVerificationView, WholeSealView
from tokenyard_billing.views import ListSize

EVER = "9999-12-31"


def router(store: SealReader, operator_store: SealOperatorStore) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/seals")
    async def seals(_operator: CurrentOperator, after: Day = None, limit: ListSize = 100) -> Page[WholeSealView]:
        """List the daily seals, the newest first."""
        found = await store.seals(after=after, limit=limit + 1)
        return Page[WholeSealView].of([WholeSealView.model_validate(one) for one in found], limit)

    @routes.get("/seals/verification")
    async def verification(_operator: CurrentOperator, first: Day = None, last: Day = None) -> SealVerificationView:
        """Make seals anew from what stands in SQL, in order; say the first day, and organization, that differs."""
        return SealVerificationView.model_validate(await operator_store.verify(first or "", last or EVER))

    return routes
