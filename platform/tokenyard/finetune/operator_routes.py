"""`/admin/jobs`: the operator's view of all fine-tuning jobs."""

from typing import Annotated

from fastapi import APIRouter, Query

from tokenyard.core.errors import NotFound
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.finetune.job import Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.pausing import JobPausing
from tokenyard.finetune.states import JobStatus
from tokenyard.finetune.store import JobStore
from tokenyard.finetune.views import EventView, OperatorJobView
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page

_Limit = Annotated[int, Query(ge=1, le=1000)]


def operator_job_router(jobs: JobOperatorStore, owned: JobStore, pausing: JobPausing) -> APIRouter:
    router = APIRouter(prefix="/admin/jobs", tags=["operator"])

    @router.get("")
    async def list_all_jobs(
        _operator: CurrentOperator,
        organization: str | None = None,
        status: JobStatus | None = None,
        limit: _Limit = 100,
        after: After = None,
    ) -> Page[OperatorJobView]:
        owner = OrganizationId(organization) if organization else None
        found = await jobs.page(organization=owner, status=status, limit=limit + 1, after=after or None)
        return Page[OperatorJobView].of([OperatorJobView.of(job) for job in found], limit)

    @router.get("/{job}")
    async def retrieve_any_job(job: str, _operator: CurrentOperator) -> OperatorJobView:
        return OperatorJobView.of(await _find(jobs, job))

    @router.post("/{job}/cancel")
    async def cancel_any_job(job: str, _operator: CurrentOperator) -> OperatorJobView:
        found = await _find(jobs, job)
        return OperatorJobView.of(await owned.cancel(found.organization, found.id))

    @router.post("/{job}/pause")
    async def pause_any_job(job: str, _operator: CurrentOperator) -> OperatorJobView:
        found = await _find(jobs, job)
        return OperatorJobView.of(await pausing.pause(found.organization, found.id))

    @router.post("/{job}/resume")
    async def resume_any_job(job: str, _operator: CurrentOperator) -> OperatorJobView:
        found = await _find(jobs, job)
        return OperatorJobView.of(await pausing.resume(found.organization, found.id))

    @router.get("/{job}/events")
    async def list_any_jobs_events(
        job: str, _operator: CurrentOperator, limit: _Limit = 100, after: After = None
    ) -> Page[EventView]:
        found = await _find(jobs, job)
        rows = await owned.events(found.organization, found.id, limit=limit + 1, after=after or None)
        return Page[EventView].of([EventView.model_validate(row) for row in rows], limit)

    return router


async def _find(jobs: JobOperatorStore, job: str) -> Job:
    found = await jobs.get(JobId(job))
    if found is None:
        raise NotFound(f"No such job: {job[:64]}", param="job")
    return found
