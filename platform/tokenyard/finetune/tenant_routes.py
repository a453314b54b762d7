"""`/v1/fine_tuning/jobs`, as OpenAI's API has it."""

from typing import Annotated

from fastapi import APIRouter, Header, Request

from tokenyard.core.ids import JobId
from tokenyard.finetune.creation import JobCreation
from tokenyard.finetune.job_request import JobRequest
from tokenyard.finetune.pausing import JobPausing
from tokenyard.finetune.ports import OwnAdapters
from tokenyard.finetune.store import JobStore
from tokenyard.finetune.views import CheckpointView, EstimateView, EventView, JobView
from tokenyard.web.auth import FineTuningTenant, FreshFineTuningTenant
from tokenyard.web.pages import After, Page, PageSize, PlainPage
from tokenyard.web.queries import METADATA_QUERY, metadata_filter

IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")
]


def job_router(jobs: JobStore, creation: JobCreation, pausing: JobPausing, own_models: OwnAdapters) -> APIRouter:
    router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])

    @router.post("")
    async def create_job(
        body: JobRequest, tenant: FreshFineTuningTenant, idempotency_key: IdempotencyKey = None
    ) -> JobView:
        """Create a job; sent again with the same `Idempotency-Key`, it is the same job, paid for once."""
        return JobView.of(await creation.create(tenant, body, idempotency_key))

    @router.post("/estimate")
    async def estimate_job(body: JobRequest, tenant: FreshFineTuningTenant) -> EstimateView:
        """Say what the job of this body would take, and create nothing."""
        return EstimateView.of(await creation.estimate(tenant, body))

    @router.get("", openapi_extra={"parameters": [METADATA_QUERY]})
    async def list_jobs(
        request: Request, tenant: FineTuningTenant, limit: PageSize = 20, after: After = None
    ) -> PlainPage[JobView]:
        found = await jobs.page(
            tenant.organization, limit=limit + 1, after=after or None, metadata=metadata_filter(request)
        )
        return PlainPage[JobView].of([JobView.of(job) for job in found], limit)

    @router.get("/{job}")
    async def retrieve_job(job: str, tenant: FineTuningTenant) -> JobView:
        return JobView.of(await jobs.get(tenant.organization, JobId(job)))

    @router.post("/{job}/cancel")
    async def cancel_job(job: str, tenant: FreshFineTuningTenant) -> JobView:
        return JobView.of(await jobs.cancel(tenant.organization, JobId(job)))

    @router.post("/{job}/pause")
    async def pause_job(job: str, tenant: FreshFineTuningTenant) -> JobView:
        """Let a job rest: at once where it does not train yet, else with its next step."""
        return JobView.of(await pausing.pause(tenant.organization, JobId(job)))

    @router.post("/{job}/resume")
    async def resume_job(job: str, tenant: FreshFineTuningTenant) -> JobView:
        """Let a paused job go on, from the step that it came to, when it is its turn."""
        return JobView.of(await pausing.resume(tenant.organization, JobId(job)))

    @router.get("/{job}/events")
    async def list_events(
        job: str, tenant: FineTuningTenant, limit: PageSize = 20, after: After = None
    ) -> PlainPage[EventView]:
        found = await jobs.get(tenant.organization, JobId(job))
        rows = await jobs.events(tenant.organization, found.id, limit=limit + 1, after=after or None)
        return PlainPage[EventView].of([EventView.model_validate(row) for row in rows], limit)

    @router.get("/{job}/checkpoints")
    async def list_checkpoints(
        job: str, tenant: FineTuningTenant, limit: PageSize = 10, after: After = None
    ) -> Page[CheckpointView]:
        found = await jobs.get(tenant.organization, JobId(job))
        rows = await jobs.checkpoints(tenant.organization, found.id, limit=limit + 1, after=after or None)
        can_be_called = await own_models.fine_tunes(tenant.organization) if rows else {}
        return Page[CheckpointView].of([CheckpointView.of(row, found, can_be_called) for row in rows], limit)

    return router
