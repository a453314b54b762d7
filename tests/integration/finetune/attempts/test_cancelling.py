"""A tenant cancels while a worker brings the job further: one of the two comes first, and the other one sees it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from support.fakes.authenticator import FixedAuthenticator
from support.finetune.stack import FinetuneStack, principal
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.operator_routes import operator_job_router
from tokenyard.finetune.progress import JobChanged, JobProgress, Note, fail, save, wait_for
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.finetune.tenant_routes import job_router
from tokenyard.storage.database import Database
from tokenyard.web.errors import install_error_handlers
from tokenyard.webhooks.events import write_event

BLOCKED = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
DEADLINE_S = 10.0
Caller = tuple[str, str]
TENANT: Caller = ("/v1/fine_tuning/jobs", "ty-acme")
OPERATOR: Caller = ("/admin/jobs", "ty-operator")
Answer = tuple[int, dict[str, object]]


def to(state: JobState, outcome: JobOutcome | None = None) -> Callable[[Job], JobProgress]:
    """Return a step of a worker into `state`, with something to tell."""

    def step(job: Job) -> JobProgress:
        attempt = 1 if state is JobState.RUNNING else job.attempt
        slot = 0 if state is JobState.RUNNING else job.slot
        after = msgspec.structs.replace(job, state=state, outcome=outcome, attempt=attempt, slot=slot)
        return JobProgress(after, (Note(message=f"The worker came to {state}", source=f"to {state}"),))

    return step


def failing(job: Job) -> JobProgress:
    return fail(job, JobError("broken", "It is broken."))


def waiting(job: Job) -> JobProgress:
    return wait_for(job, "a replica")


SETTLED = to(JobState.SETTLING, JobOutcome.SUCCEEDED)
SUCCEEDED = to(JobState.SUCCEEDED, JobOutcome.SUCCEEDED)
ROAD = (to(JobState.QUEUED), to(JobState.RUNNING), to(JobState.CHECKING), SETTLED)
STATES = (JobState.VALIDATING, JobState.QUEUED, JobState.RUNNING, JobState.CHECKING, JobState.SETTLING)


@dataclass(frozen=True)
class Step:
    """What a worker does to a job in `state`; where that `ends` it, it can no longer be cancelled."""

    name: str
    state: JobState
    progress: Callable[[Job], JobProgress]
    ends: bool = False

    @property
    def ended_before(self) -> bool:
        return self.state is JobState.SETTLING


STEPS = (
    Step("validating-queued", JobState.VALIDATING, ROAD[0]),
    Step("validating-failed", JobState.VALIDATING, failing, ends=True),
    Step("queued-waiting", JobState.QUEUED, waiting),
    Step("queued-running", JobState.QUEUED, ROAD[1]),
    Step("running-waiting", JobState.RUNNING, waiting),
    Step("running-checking", JobState.RUNNING, ROAD[2]),
    Step("running-failed", JobState.RUNNING, failing, ends=True),
    Step("checking-waiting", JobState.CHECKING, waiting),
    Step("checking-settling", JobState.CHECKING, SETTLED, ends=True),
    Step("checking-failed", JobState.CHECKING, failing, ends=True),
    Step("settling-succeeded", JobState.SETTLING, SUCCEEDED, ends=True),
)
every_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


@dataclass(frozen=True)
class Canceller:
    """Cancels over HTTP; answers status code and body."""

    client: httpx.AsyncClient

    async def cancel(self, job: Job, who: Caller = TENANT) -> Answer:
        path, key = who
        reply = await self.client.post(f"{path}/{job.id}/cancel", headers={"authorization": f"Bearer {key}"})
        return reply.status_code, reply.json()


@pytest.fixture
async def canceller(stack: FinetuneStack) -> AsyncIterator[Canceller]:
    app = FastAPI()
    install_error_handlers(app)
    app.state.authenticator = FixedAuthenticator({"ty-acme": principal()}, "ty-operator")
    app.include_router(job_router(stack.jobs, stack.creation, stack.pausing, stack.catalog))
    app.include_router(operator_job_router(stack.operator, stack.jobs, stack.pausing))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield Canceller(client)


async def brought_to(stack: FinetuneStack, state: JobState) -> Job:
    """Make a job and bring it to `state` as a worker does."""
    job = await stack.create()
    for progress in ROAD[: STATES.index(state)]:
        job = await stack.operator.save(job, progress(job))
    assert job.state is state
    return job


async def until_blocked(database: Database) -> None:
    """Wait until somebody waits for a lock; SQLite has but one, for which whoever writes waits at once."""
    if database.is_sqlite:
        await asyncio.sleep(0.05)
        return
    async with asyncio.timeout(DEADLINE_S), database.reading() as session:
        while not await session.scalar(BLOCKED):
            await session.execute(text("SELECT pg_sleep(0.01)"))


def check_answer(answer: Answer, *, ended: bool) -> None:
    status, body = answer
    if ended:
        error = body["error"]
        assert isinstance(error, dict)
        assert (status, error["code"], error["type"]) == (400, "job_not_cancellable", "invalid_request_error")
    else:
        assert (status, body.get("status")) == (200, "cancelled"), body


async def check_cancelled(stack: FinetuneStack, job: Job) -> None:
    """The worker takes the cancelled job to its end, which is billed once."""
    assert (await stack.job(job.id)).outcome is JobOutcome.CANCELLED
    await stack.rounds(4)
    assert (await stack.job(job.id)).state is JobState.CANCELLED
    assert [event.job for event in await stack.charges()] == [job.id]


@every_step
@pytest.mark.parametrize("who", [TENANT, OPERATOR], ids=["tenant", "operator"])
async def test_the_worker_commits_while_the_cancel_is_under_way(
    stack: FinetuneStack, canceller: Canceller, step: Step, who: Caller
) -> None:
    job = await brought_to(stack, step.state)
    progress = step.progress(job)
    async with stack.database.transaction() as session:
        saved = await save(session, job, progress, write_event, now=1)
        cancelling = asyncio.create_task(canceller.cancel(job, who))
        await until_blocked(stack.database)
    check_answer(await cancelling, ended=step.ends)
    assert {note.message for note in progress.notes} <= set(await stack.messages(job)), "what the worker told stays"
    if step.ends:
        assert await stack.job(job.id) == saved
    else:
        await check_cancelled(stack, job)


@every_step
async def test_the_cancel_commits_while_the_worker_is_at_it(
    stack: FinetuneStack, canceller: Canceller, step: Step
) -> None:
    job = await brought_to(stack, step.state)
    check_answer(await canceller.cancel(job), ended=step.ended_before)
    if step.ended_before:
        assert (await stack.operator.save(job, step.progress(job))).state is JobState.SUCCEEDED
        return
    with pytest.raises(JobChanged):
        await stack.operator.save(job, step.progress(job))
    check_answer(await canceller.cancel(job), ended=False)
    await check_cancelled(stack, job)


@every_step
async def test_worker_and_cancels_at_the_same_moment(stack: FinetuneStack, canceller: Canceller, step: Step) -> None:
    job = await brought_to(stack, step.state)
    first, second, worker = await asyncio.gather(
        canceller.cancel(job), canceller.cancel(job), _saved(stack, job, step.progress(job))
    )
    assert first == second
    check_answer(first, ended=step.ended_before or (worker is not None and step.ends))
    if first[0] == 200:
        await check_cancelled(stack, job)


async def _saved(stack: FinetuneStack, job: Job, progress: JobProgress) -> Job | None:
    try:
        return await stack.operator.save(job, progress)
    except JobChanged:
        return None
