"""`/admin/jobs`: the operator's view of all fine-tuning jobs."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query

from tokenyard.core.errors import NotFound
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.finetune.jobs import Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.store import JobStore
from tokenyard.storage.paging import list_object
from tokenyard.web.auth import CurrentOperator

MAX_PAGE = 1000
_Status = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]


def operator_job_router(jobs: JobOperatorStore, owned: JobStore) -> APIRouter:
    """Return the operator's routes of fine-tuning jobs."""
    router = APIRouter(prefix="/admin/jobs", tags=["operator"])

    @router.get("")
    async def list_all_jobs(
        _operator: CurrentOperator,
        organization: str | None = None,
        status: _Status | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        after: str | None = None,
    ) -> dict[str, Any]:
        found, has_more = await jobs.page(
            organization=OrganizationId(organization) if organization else None,
            status=status,
            limit=limit,
            after=after or None,
        )
        return list_object([_as_operator_sees(job) for job in found], has_more=has_more)

    @router.get("/{job}")
    async def retrieve_any_job(job: str, _operator: CurrentOperator) -> dict[str, Any]:
        return _as_operator_sees(await _find(jobs, job))

    @router.post("/{job}/cancel")
    async def cancel_any_job(job: str, _operator: CurrentOperator) -> dict[str, Any]:
        found = await _find(jobs, job)
        return _as_operator_sees(await owned.cancel(found.organization, found.id))

    @router.get("/{job}/events")
    async def list_any_jobs_events(
        job: str,
        _operator: CurrentOperator,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        after: str | None = None,
    ) -> dict[str, Any]:
        found = await _find(jobs, job)
        events, has_more = await owned.events(found.organization, found.id, limit=limit, after=after or None)
        return list_object(events, has_more=has_more)

    return router


async def _find(jobs: JobOperatorStore, job: str) -> Job:
    found = await jobs.get(JobId(job))
    if found is None:
        raise NotFound(f"No such job: {job[:64]}", param="job")
    return found


def _as_operator_sees(job: Job) -> dict[str, Any]:
    """Return OpenAI's object and what the platform knows besides; money in nano-dollars."""
    return job.as_openai() | {
        "project_id": job.project,
        "api_key_id": job.key,
        "organization_slug": job.organization_slug,
        "state": job.state,
        "attempt": job.attempt,
        "waits_for": job.waits_for,
        "price": job.price,
        "reserved_tokens": job.reserved_tokens,
        "reserved_amount": job.reserved_amount,
        "adapter": job.adapter,
        "internal_error": msgspec.to_builtins(job.error),
    }
