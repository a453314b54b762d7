"""The command `tokenyard-train`: creates a fine-tuning job, or a sweep, through the API and follows it to its end.

A tenant runs it with TOKENYARD_API_KEY; the operator, also under `ray job submit`, with TOKENYARD_ADMIN_KEY, or with
neither on the machine that owns the data folder. It exits with 0 only where there is a model. Ctrl-C and SIGTERM
cancel what was created, unless `--detach` was given.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from tokenyard.cli.credentials import NoDatabase, acting_tenant
from tokenyard.cli.jobs import POLL_S, event_line
from tokenyard.cli.output import write
from tokenyard.clients.platform_api.connection import ApiFailed
from tokenyard.clients.platform_api.shapes import EventInfo, JobInfo, SweepInfo, TrialInfo
from tokenyard.clients.platform_api.tenant_api import TenantApi
from tokenyard.finetune.ray_jobs.command_line import add_job_flags, job_body
from tokenyard.stack.installation import load_settings

FAILED, STOPPED = 1, 130
AWAY_LIMIT_S = 120.0
CANCEL_LIMIT_S = 60.0

EndedT = TypeVar("EndedT")
EndedT_co = TypeVar("EndedT_co", covariant=True)


class Follower(Protocol[EndedT_co]):
    """Follows what was created to its end."""

    async def until_end(self) -> EndedT_co: ...

    async def cancel(self) -> EndedT_co: ...


class JobFollower:
    """Prints a job's events as they come, until it ends."""

    def __init__(self, api: TenantApi, job: str, say: Callable[[str], None] = write) -> None:
        self._api = api
        self._job = job
        self._say = say
        self._seen: set[str] = set()

    async def until_end(self) -> JobInfo:
        """Return the ended job; a gateway that is away longer than AWAY_LIMIT_S, or refuses, raises `ApiFailed`."""
        answered = time.monotonic()
        while True:
            try:
                job = await self._api.job(self._job)
                for event in reversed(await self._new_events()):
                    self._seen.add(event.id)
                    self._say(event_line(event))
                answered = time.monotonic()
                if job.ended:
                    return job
            except ApiFailed as error:
                if not error.passing or time.monotonic() - answered > AWAY_LIMIT_S:
                    raise
            await asyncio.sleep(POLL_S)

    async def cancel(self) -> JobInfo:
        """Cancel the job and wait until it has ended.

        Raises:
            ApiFailed: refused, or the gateway is away.
            TimeoutError: it did not end in CANCEL_LIMIT_S.
        """
        async with asyncio.timeout(CANCEL_LIMIT_S):
            try:
                await self._api.cancel_job(self._job)
            except ApiFailed as error:
                if error.status not in (400, 409):  # it has ended before
                    raise
            return await self.until_end()

    async def _new_events(self) -> list[EventInfo]:
        """Return the events that were not printed yet, newest first, reading no further back than needed."""
        fresh: list[EventInfo] = []
        after = None
        while True:
            page, more = await self._api.events(self._job, after=after)
            new = [event for event in page if event.id not in self._seen]
            fresh += new
            if len(new) < len(page) or not more or not new:
                return fresh
            after = new[-1].id


class SweepFollower:
    """Prints the events of all trials as they come, each after its trial's number, until all have ended."""

    def __init__(self, api: TenantApi, sweep: SweepInfo, say: Callable[[str], None] = write) -> None:
        self._api = api
        self._sweep = sweep.id
        self._trials = [JobFollower(api, trial.id, _of_trial(number, say)) for number, trial in _numbered(sweep)]

    async def until_end(self) -> SweepInfo:
        """Return the ended sweep; raises `ApiFailed` as `JobFollower.until_end` does."""
        await asyncio.gather(*(trial.until_end() for trial in self._trials))
        return await self._api.sweep(self._sweep)

    async def cancel(self) -> SweepInfo:
        """Cancel all trials and wait until they have ended; raises what `JobFollower.cancel` does."""
        async with asyncio.timeout(CANCEL_LIMIT_S):
            try:
                await self._api.cancel_sweep(self._sweep)
            except ApiFailed as error:
                if error.status not in (400, 409):  # it has ended before
                    raise
            return await self.until_end()


def _numbered(sweep: SweepInfo) -> Iterable[tuple[int, TrialInfo]]:
    return enumerate(sweep.trials, 1)


def _of_trial(number: int, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: say(f"{number}  {line}")


async def file_id(api: TenantApi, given: str) -> str:
    """Return the id of a file: `given` itself where it is one, else that of the local file, uploaded."""
    path = Path(given)
    if await asyncio.to_thread(path.is_file):
        return (await api.upload_training_file(path)).id
    if given.startswith("file-"):
        return given
    raise ApiFailed(f"There is no file {given}, and it is not the id of an uploaded file.")


async def until_signal(following: Awaitable[EndedT]) -> EndedT | None:
    """Wait for the end of what is followed; None where a signal came first."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(following)
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        ended = await task
    except asyncio.CancelledError:
        return None
    for number in numbers:
        loop.remove_signal_handler(number)
    return ended


async def _follow(follower: Follower[EndedT], what: str, outcome: Callable[[EndedT], int], *, detach: bool) -> int:
    ended = await until_signal(follower.until_end())
    if ended is None and detach:
        write(f"Not following any longer; {what} goes on.")
        return STOPPED
    if ended is None:
        write(f"Cancelling {what}.")
        ended = await follower.cancel()
    return outcome(ended)


def _outcome(job: JobInfo) -> int:
    if job.status == "succeeded":
        write(f"Succeeded: {job.fine_tuned_model} ({job.trained_tokens} trained tokens)")
        return 0
    reason = f": {job.error.message}" if job.error else "."
    write(f"The job {job.status}{reason}" if job.status == "failed" else f"The job was {job.status}.")
    return FAILED


def _outcome_of_sweep(sweep: SweepInfo) -> int:
    for number, trial in _numbered(sweep):
        if trial.id == sweep.best_trial:
            write(f"Succeeded: {sweep.fine_tuned_model}, of trial {number} (all trials: {sweep.cost_dollars} dollars)")
            return 0
    write("The sweep was cancelled." if sweep.status == "cancelled" else "The sweep failed: no trial left a model.")
    return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tokenyard-train",
        description="Fine-tune a model and follow the job. The key is TOKENYARD_API_KEY, or the operator's "
        "TOKENYARD_ADMIN_KEY.",
        allow_abbrev=False,
    )
    add_job_flags(parser, files="a JSONL file here, or the id of an uploaded one (file-...)")
    add = parser.add_argument
    add("--organization", help="id or slug: the operator says whose job it is")
    add("--project", help="the operator says which (default: the default project)")
    url = os.environ.get("TOKENYARD_URL", "http://127.0.0.1:8000")
    add("--base-url", default=url, help="the gateway (default: TOKENYARD_URL, else %(default)s)")
    add("--detach", action="store_true", help="Ctrl-C and SIGTERM leave the job running")
    return parser


async def _train(given: argparse.Namespace) -> int:
    url = given.base_url.rstrip("/").removesuffix("/v1")
    who = acting_tenant(url, load_settings(), organization=given.organization, project=given.project)
    async with who as tenant:
        api = TenantApi(tenant.connection, tenant.key)
        given.training_file = await file_id(api, given.training_file)
        if given.validation_file:
            given.validation_file = await file_id(api, given.validation_file)
        if given.sweep:
            sweep = await api.create_sweep(job_body(given))
            for number, trial in _numbered(sweep):
                write(f"Trial {number} of sweep {sweep.id}: job {trial.id}, {trial.hyperparameters}")
            follower = SweepFollower(api, sweep)
            return await _follow(follower, f"sweep {sweep.id}", _outcome_of_sweep, detach=given.detach)
        job = await api.create_job(job_body(given))
        write(f"Job {job.id}: {given.model}, {job.hyperparameters}")
        return await _follow(JobFollower(api, job.id), f"job {job.id}", _outcome, detach=given.detach)


def main() -> int:
    """Run the command and return its exit status."""
    given = _parser().parse_args()
    try:
        return asyncio.run(_train(given))
    except (ApiFailed, NoDatabase) as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    except TimeoutError:
        sys.stderr.write("The job was asked to end, but had not done so in time.\n")
        return FAILED
    except KeyboardInterrupt:
        return STOPPED
