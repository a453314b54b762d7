"""`/v1/fine_tuning/sweeps`, to which OpenAI's API has no counterpart."""

from fastapi import APIRouter

from tokenyard.core.ids import SweepId
from tokenyard.finetune.sweeps.creation import SweepCreation
from tokenyard.finetune.sweeps.store import SweepStore
from tokenyard.finetune.sweeps.sweep_request import SweepRequest
from tokenyard.finetune.sweeps.views import SweepEstimateView, SweepView
from tokenyard.finetune.tenant_routes import IdempotencyKey
from tokenyard.web.auth import FineTuningTenant, FreshFineTuningTenant
from tokenyard.web.pages import After, LongPageSize, PlainPage


def sweep_router(sweeps: SweepStore, creation: SweepCreation) -> APIRouter:
    router = APIRouter(prefix="/v1/fine_tuning/sweeps", tags=["fine-tuning"])

    @router.post("")
    async def create_sweep(
        body: SweepRequest, tenant: FreshFineTuningTenant, idempotency_key: IdempotencyKey = None
    ) -> SweepView:
        """Create a job for each combination, or none; sent again with the same `Idempotency-Key`, the same sweep."""
        return SweepView.of(await creation.create(tenant, body, idempotency_key))

    @router.post("/estimate")
    async def estimate_sweep(body: SweepRequest, tenant: FreshFineTuningTenant) -> SweepEstimateView:
        """Say what the sweep of this body would take, and create nothing."""
        return SweepEstimateView.of(await creation.estimate(tenant, body))

    @router.get("")
    async def list_sweeps(
        tenant: FineTuningTenant, limit: LongPageSize = 20, after: After = None
    ) -> PlainPage[SweepView]:
        found = await sweeps.page(tenant.organization, limit=limit + 1, after=after or None)
        return PlainPage[SweepView].of([SweepView.of(sweep) for sweep in found], limit)

    @router.get("/{sweep}")
    async def retrieve_sweep(sweep: str, tenant: FineTuningTenant) -> SweepView:
        return SweepView.of(await sweeps.get(tenant.organization, SweepId(sweep)))

    @router.post("/{sweep}/cancel")
    async def cancel_sweep(sweep: str, tenant: FreshFineTuningTenant) -> SweepView:
        """Cancel every trial that has not ended; each pays for the steps that it made."""
        return SweepView.of(await sweeps.cancel(tenant.organization, SweepId(sweep)))

    return router
