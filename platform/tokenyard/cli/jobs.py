"""`tokenyard jobs`: fine-tuning jobs of all organizations."""

import asyncio
from typing import Annotated, Any

import typer

from tokenyard.cli.call import Call
from tokenyard.cli.command import platform_command
from tokenyard.cli.output import Shown, details, moment, table

jobs = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="The job's id, ftjob-...")]

ENDED = ("succeeded", "failed", "cancelled")
POLL_S = 1.0


@platform_command(jobs, "list")
async def listing(
    call: Call,
    organization: Annotated[str | None, typer.Option(help="Only of this organization.")] = None,
    status: Annotated[str | None, typer.Option(help="Only in this status, such as running.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
) -> Shown:
    """List jobs, newest first."""
    owner = (await call.organization(organization))["id"] if organization else None
    found = (await call.api.get("/admin/jobs", organization=owner, status=status, limit=limit))["data"]
    rows = [{**job, "created_at": moment(job["created_at"]), "waits_for": job.get("waits_for") or "-"} for job in found]
    columns = {
        "id": "JOB",
        "organization_slug": "ORGANIZATION",
        "model": "BASE",
        "status": "STATUS",
        "waits_for": "WAITS FOR",
        "trained_tokens": "TOKENS",
        "created_at": "CREATED",
        "fine_tuned_model": "MODEL",
    }
    return Shown(found, table(rows, columns, empty="No jobs."))


@platform_command(jobs, "show")
async def show(call: Call, job: JobId) -> Shown:
    """Show all that is known of a job."""
    found = await call.api.get(f"/admin/jobs/{job}")
    times = {name: moment(found.get(name)) for name in ("created_at", "finished_at")}
    return Shown(found, details({**found, **times}))


@platform_command(jobs, "cancel")
async def cancel(call: Call, job: JobId) -> Shown:
    """Ask a job to end."""
    found = await call.api.post(f"/admin/jobs/{job}/cancel")
    return Shown(found, f"{job} is {found['status']}.")


@platform_command(jobs, "events")
async def events(
    call: Call,
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Print a job's events, oldest first."""
    seen: set[str] = set()
    while True:
        ended = (await call.api.get(f"/admin/jobs/{job}"))["status"] in ENDED
        for event in await _events(call, job):
            if event["id"] not in seen:
                seen.add(event["id"])
                call.emit(event, event_line(event))
        if ended or not follow:
            return
        await asyncio.sleep(POLL_S)


async def _events(call: Call, job: str) -> list[dict[str, Any]]:
    """Return all events, oldest first."""
    found = [event async for event in call.api.every(f"/admin/jobs/{job}/events")]
    return found[::-1]


def event_line(event: dict[str, Any]) -> str:
    """Write one event."""
    return f"{moment(event['created_at'])}  {event['level']:<5}  {event['message']}"
