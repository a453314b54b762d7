"""`/api/jobs/`: what the stock `ray job submit --no-wait`, `status`, `logs`, `stop` and `list` ask of a cluster."""

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import RootModel

from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.finetune.creation import JobCreation
from tokenyard.finetune.job import Job
from tokenyard.finetune.ray_jobs.submission import Submission
from tokenyard.finetune.ray_jobs.views import (
    KEY_PREFIX,
    LogsView,
    RayJobView,
    RayVersionView,
    StoppedView,
    SubmittedView,
    submission_of,
)
from tokenyard.finetune.store import JobStore
from tokenyard.finetune.tables import EventRow
from tokenyard.web.auth import FineTuningTenant, FreshFineTuningTenant

JOBS_LISTED = 100
LINES_SHOWN = 1000


class RayJobList(RootModel[list[RayJobView]]):
    """The newest jobs, newest first."""


def ray_jobs_router(jobs: JobStore, creation: JobCreation) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["ray-jobs"])

    async def find(organization: OrganizationId, submission: str) -> Job:
        known = await jobs.created_with(organization, f"{KEY_PREFIX}{submission}"[:255])
        return await jobs.get(organization, known[0].id if known else JobId(submission))

    @router.get("/version")
    async def version(_tenant: FineTuningTenant) -> RayVersionView:
        return RayVersionView()

    @router.post("/jobs/")
    async def submit(body: Submission, tenant: FreshFineTuningTenant) -> SubmittedView:
        """Create a fine-tuning job from `tokenyard-train` and its flags; files are ids of uploaded ones."""
        key = None if body.submission_id is None else f"{KEY_PREFIX}{body.submission_id}"
        job = await creation.create(tenant, body.request(), key)
        return SubmittedView(job_id=submission_of(job), submission_id=submission_of(job))

    @router.get("/jobs/")
    async def list_ray_jobs(tenant: FineTuningTenant) -> RayJobList:
        found = await jobs.page(tenant.organization, limit=JOBS_LISTED, after=None, metadata=None)
        return RayJobList([RayJobView.of(job) for job in found])

    @router.get("/jobs/{submission}")
    async def status(submission: str, tenant: FineTuningTenant) -> RayJobView:
        return RayJobView.of(await find(tenant.organization, submission))

    @router.get("/jobs/{submission}/logs")
    async def logs(submission: str, tenant: FineTuningTenant) -> LogsView:
        """Return the job's events, a line each; what runs in the cluster is not shown."""
        job = await find(tenant.organization, submission)
        return LogsView(logs=_lines(await jobs.events(job.organization, job.id, limit=LINES_SHOWN, after=None)))

    @router.post("/jobs/{submission}/stop")
    async def stop(submission: str, tenant: FreshFineTuningTenant) -> StoppedView:
        job = await find(tenant.organization, submission)
        if job.finished_at is not None:
            return StoppedView(stopped=False)
        await jobs.cancel(job.organization, job.id)
        return StoppedView(stopped=True)

    return router


def _lines(newest_first: Sequence[EventRow]) -> str:
    return "".join(f"{event.message}\n" for event in reversed(newest_first))
