"""What `tokenyard-train` asks with a tenant's key: upload a file, create a job or a sweep, follow it, cancel it."""

import asyncio
from pathlib import Path
from urllib.parse import quote

import aiohttp

from tokenyard.clients.platform_api.connection import PAGE_SIZE, ApiCaller
from tokenyard.clients.platform_api.shapes import EventInfo, FileInfo, JobInfo, Json, Listing, SweepInfo

UPLOAD_TIMEOUT_S = 3600.0
_JOBS = "/v1/fine_tuning/jobs"
_SWEEPS = "/v1/fine_tuning/sweeps"


class TenantApi(ApiCaller):
    """Every method raises `ApiFailed` where the API refuses or does not answer."""

    async def upload_training_file(self, path: Path) -> FileInfo:
        with await asyncio.to_thread(path.open, "rb") as content:
            form = aiohttp.FormData()
            form.add_field("purpose", "fine-tune")
            form.add_field("file", content, filename=path.name, content_type="application/jsonl")
            return await self.call(FileInfo, "POST", "/v1/files", body=form, timeout_s=UPLOAD_TIMEOUT_S)

    async def create_job(self, body: Json) -> JobInfo:
        return await self.call(JobInfo, "POST", _JOBS, body=body)

    async def job(self, job: str) -> JobInfo:
        return await self.call(JobInfo, "GET", _job(job))

    async def cancel_job(self, job: str) -> JobInfo:
        return await self.call(JobInfo, "POST", f"{_job(job)}/cancel")

    async def create_sweep(self, body: Json) -> SweepInfo:
        return await self.call(SweepInfo, "POST", _SWEEPS, body=body)

    async def sweep(self, sweep: str) -> SweepInfo:
        return await self.call(SweepInfo, "GET", f"{_SWEEPS}/{quote(sweep, safe='')}")

    async def cancel_sweep(self, sweep: str) -> SweepInfo:
        return await self.call(SweepInfo, "POST", f"{_SWEEPS}/{quote(sweep, safe='')}/cancel")

    async def events(self, job: str, *, after: str | None) -> tuple[list[EventInfo], bool]:
        """Return a page of events, newest first, and whether there are older ones."""
        query = {"limit": PAGE_SIZE, "after": after}
        page = await self.call(Listing, "GET", f"{_job(job)}/events", query=query)
        return [EventInfo.model_validate(event) for event in page.data], page.has_more


def _job(job: str) -> str:
    return f"{_JOBS}/{quote(job, safe='')}"
