"""What an operator looks into: a request's story, the checks of the books, alarms and dead letters."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard_billing.proof.operator_store import BillingOperatorStore
from tokenyard_billing.proof.reconcile import LedgerReconciler
from tokenyard_billing.proof.views import AlarmView, DeadLetterResent, DeadLetterView, Reconciliation, RequestView
from tokenyard_billing.tables import Alarm, DeadLetter
from tokenyard_billing.views import ListSize


class DeadLetterBody(BaseModel, extra="forbid"):
    """Names a dead letter, as the list of them does."""

    stream: str = Field(max_length=64)
    entry: str = Field(max_length=48)


def router(store: BillingOperatorStore, reconciler: LedgerReconciler) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/requests/{request}")
    async def story(_operator: CurrentOperator, request: str) -> RequestView:
        """Tell a request's or a training job's whole story."""
        return RequestView.model_validate(await store.request(request))

    @routes.get("/reconcile")
    @routes.post("/reconcile")
    async def reconcile(_operator: CurrentOperator) -> Reconciliation:
        """Check the invariants of the money; it changes nothing."""
        return await reconciler.reconcile()

    @routes.get("/alarms")
    async def alarms(_operator: CurrentOperator, after: After = None, limit: ListSize = 100) -> Page[AlarmView]:
        found = await store.newest(Alarm, after, limit + 1)
        return Page[AlarmView].of([AlarmView.model_validate(one) for one in found], limit)

    @routes.get("/dead_letters")
    async def dead_letters(
        _operator: CurrentOperator, after: After = None, limit: ListSize = 100
    ) -> Page[DeadLetterView]:
        found = await store.newest(DeadLetter, after, limit + 1)
        return Page[DeadLetterView].of([DeadLetterView.model_validate(one) for one in found], limit)

    @routes.post("/dead_letters/send_again")
    async def send_again(_operator: CurrentOperator, body: DeadLetterBody) -> DeadLetterResent:
        """Put a dead letter back on its stream, after its cause was fixed."""
        await store.send_again(body.stream, body.entry)
        return DeadLetterResent(stream=body.stream, entry=body.entry)

    return routes
