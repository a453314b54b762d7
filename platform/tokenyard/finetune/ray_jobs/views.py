"""Jobs as Ray's Jobs API shows them."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel

from tokenyard.finetune.job import Job
from tokenyard.finetune.ray_jobs.submission import COMMAND
from tokenyard.finetune.states import JobStatus

RAY_VERSION = "2.8.0"
"""The oldest whose commands ask for nothing but what is answered here."""
KEY_PREFIX = "ray-job:"
"""Of the idempotency keys that stand for submission ids."""

RayStatus = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
STATUS: Mapping[JobStatus, RayStatus] = {
    "validating_files": "PENDING",
    "queued": "PENDING",
    "paused": "PENDING",
    "running": "RUNNING",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
    "cancelled": "STOPPED",
}


class RayVersionView(BaseModel):
    version: str = "4"
    ray_version: str = RAY_VERSION
    ray_commit: str = ""
    session_name: str = ""


class SubmittedView(BaseModel):
    job_id: str
    submission_id: str


class StoppedView(BaseModel):
    stopped: bool


class LogsView(BaseModel):
    logs: str


class RayJobView(BaseModel):
    """Ray's `JobDetails`; times are unix milliseconds."""

    type: Literal["SUBMISSION"] = "SUBMISSION"
    job_id: str | None = None
    submission_id: str
    status: RayStatus
    entrypoint: str
    message: str
    error_type: str | None
    start_time: int
    end_time: int | None
    metadata: dict[str, str]
    runtime_env: dict[str, str] = {}

    @classmethod
    def of(cls, job: Job) -> "RayJobView":
        failed = job.status == "failed" and job.error is not None
        return cls(
            submission_id=submission_of(job),
            status=STATUS[job.status],
            entrypoint=f"{COMMAND} --model {job.model} --training-file {job.training_file}",
            message=job.error.message if failed and job.error is not None else f"The job {job.id} is {job.status}.",
            error_type=job.error.code if failed and job.error is not None else None,
            start_time=job.created_at_ms,
            end_time=None if job.finished_at is None else job.finished_at * 1000,
            metadata=job.metadata,
        )


def submission_of(job: Job) -> str:
    """Return the submission id: the client's own, or the job's."""
    key = job.idempotency_key or ""
    return key.removeprefix(KEY_PREFIX) if key.startswith(KEY_PREFIX) else job.id
