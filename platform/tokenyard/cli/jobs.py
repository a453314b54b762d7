"""`tokenyard jobs`: fine-tuning jobs of all organizations."""

import asyncio
from typing import Annotated

import typer

from tokenyard.cli.command import CommandRun, platform_command
from tokenyard.cli.output import CommandOutput, described, moment, table
from tokenyard.clients.platform_api.shapes import EventInfo

jobs = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)

JobIdArgument = Annotated[str, typer.Argument(help="The job's id, ftjob-...")]

POLL_S = 1.0
_HEADINGS = ("JOB", "ORGANIZATION", "BASE", "STATUS", "WAITS FOR", "TOKENS", "CREATED", "MODEL")


@platform_command(jobs, "list")
async def listing(
    run: CommandRun,
    organization: Annotated[str | None, typer.Option(help="Only of this organization.")] = None,
    status: Annotated[str | None, typer.Option(help="Only in this status, such as running.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
) -> CommandOutput:
    """List jobs, newest first."""
    owner = (await run.organization(organization)).id if organization else None
    found = await run.api.jobs(organization=owner, status=status, limit=limit)
    rows = [
        (
            *(job.id, job.organization_slug, job.model, job.status, job.waits_for or "-", job.trained_tokens),
            *(moment(job.created_at), job.fine_tuned_model),
        )
        for job in found
    ]
    return CommandOutput(found, table(_HEADINGS, rows, empty="No jobs."))


@platform_command(jobs, "show")
async def show(run: CommandRun, job: JobIdArgument) -> CommandOutput:
    """Show all that is known of a job."""
    return described(await run.api.job(job))


@platform_command(jobs, "cancel")
async def cancel(run: CommandRun, job: JobIdArgument) -> CommandOutput:
    """Ask a job to end."""
    found = await run.api.cancel_job(job)
    return CommandOutput(found, f"{job} is {found.status}.")


@platform_command(jobs, "pause")
async def pause(run: CommandRun, job: JobIdArgument) -> CommandOutput:
    """Let a job rest after its next step."""
    found = await run.api.pause_job(job)
    return CommandOutput(found, f"{job} is {found.status}.")


@platform_command(jobs, "resume")
async def resume(run: CommandRun, job: JobIdArgument) -> CommandOutput:
    """Let a paused job go on."""
    found = await run.api.resume_job(job)
    return CommandOutput(found, f"{job} is {found.status}.")


@platform_command(jobs, "events")
async def events(
    run: CommandRun,
    job: JobIdArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Print a job's events, oldest first."""
    seen: set[str] = set()
    while True:
        ended = (await run.api.job(job)).ended
        found = [event async for event in run.api.job_events(job)]
        for event in reversed(found):
            if event.id not in seen:
                seen.add(event.id)
                run.emit(event, event_line(event))
        if ended or not follow:
            return
        await asyncio.sleep(POLL_S)


def event_line(event: EventInfo) -> str:
    return f"{moment(event.created_at)}  {event.level:<5}  {event.message}"
