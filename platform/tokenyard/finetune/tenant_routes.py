"""`/v1/fine_tuning/jobs`, as OpenAI's API has it."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import JobId
from tokenyard.finetune.creation import JobCreation
from tokenyard.finetune.job_request import MAX_METADATA, MAX_METADATA_KEY, JobRequest
from tokenyard.finetune.store import JobStore
from tokenyard.storage.paging import list_object
from tokenyard.web.auth import CurrentTenant, FreshTenant

MAX_PAGE = 100
# SQLite's JSON paths have no way to write the others.
_FILTERABLE = re.compile(rf'[^"\\\x00-\x1f]{{1,{MAX_METADATA_KEY}}}')
_JOBS_LIMIT = Annotated[int, Query(ge=1, le=MAX_PAGE)]


def job_router(jobs: JobStore, creation: JobCreation) -> APIRouter:
    """Return the routes of fine-tuning jobs."""
    router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])

    @router.post("")
    async def create_job(body: JobRequest, tenant: FreshTenant) -> dict[str, Any]:
        return (await creation.create(tenant, body)).as_openai()

    @router.get("")
    async def list_jobs(
        request: Request, tenant: CurrentTenant, limit: _JOBS_LIMIT = 20, after: str | None = None
    ) -> dict[str, Any]:
        found, has_more = await jobs.page(
            tenant.organization, limit=limit, after=after or None, metadata=_metadata(request)
        )
        return {"object": "list", "data": [job.as_openai() for job in found], "has_more": has_more}

    @router.get("/{job}")
    async def retrieve_job(job: str, tenant: CurrentTenant) -> dict[str, Any]:
        return (await jobs.get(tenant.organization, JobId(job))).as_openai()

    @router.post("/{job}/cancel")
    async def cancel_job(job: str, tenant: CurrentTenant) -> dict[str, Any]:
        return (await jobs.cancel(tenant.organization, JobId(job))).as_openai()

    @router.get("/{job}/events")
    async def list_events(
        job: str, tenant: CurrentTenant, limit: _JOBS_LIMIT = 20, after: str | None = None
    ) -> dict[str, Any]:
        found, has_more = await jobs.events(tenant.organization, JobId(job), limit=limit, after=after or None)
        return {"object": "list", "data": found, "has_more": has_more}

    @router.get("/{job}/checkpoints")
    async def list_checkpoints(
        job: str, tenant: CurrentTenant, limit: _JOBS_LIMIT = 10, after: str | None = None
    ) -> dict[str, Any]:
        found, has_more = await jobs.checkpoints(tenant.organization, JobId(job), limit=limit, after=after or None)
        return list_object(found, has_more=has_more)

    return router


def _metadata(request: Request) -> dict[str, str] | None:
    """Read `metadata[k]=v` pairs; `metadata=null` asks for jobs without metadata."""
    if request.query_params.get("metadata") == "null":
        return {}
    pairs = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    if len(pairs) > MAX_METADATA or not all(_FILTERABLE.fullmatch(name) for name in pairs):
        raise InvalidRequest(
            f"Filter by up to {MAX_METADATA} metadata keys without quotes, backslashes or control characters.",
            param="metadata",
        )
    return pairs or None
