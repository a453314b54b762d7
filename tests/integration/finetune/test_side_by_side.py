"""A worker brings jobs further side by side: a slow one holds up nobody, and there is a bound on how many it has."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from support.finetune.stack import FinetuneStack, principal
from tokenyard.finetune.job import Job
from tokenyard.finetune.progress import JobProgress, wait_for
from tokenyard.finetune.reconciling.reconciler import JOBS_AT_ONCE, JobReconciler
from tokenyard.finetune.states import JobState

DEADLINE_S = 10.0


def worker(stack: FinetuneStack, step: Callable[[Job], Awaitable[JobProgress]]) -> JobReconciler:
    return JobReconciler(store=stack.operator, steps={JobState.VALIDATING: step}, owner="worker", clock=stack.clock)


async def test_a_slow_job_holds_up_no_other(stack: FinetuneStack) -> None:
    slow = await stack.create()
    others: list[Job] = []
    came = asyncio.Event()

    async def step(job: Job) -> JobProgress:
        if job.id == slow.id:
            others.append(await stack.create(principal("rival")))
            await asyncio.wait_for(came.wait(), DEADLINE_S)
        else:
            came.set()
        return wait_for(job, "nothing more")

    await worker(stack, step).step()
    assert others
    for job in (slow, *others):
        assert (await stack.job(job.id)).waits_for == "nothing more"


async def test_a_worker_has_a_bounded_number_of_jobs(stack: FinetuneStack) -> None:
    for number in range(JOBS_AT_ONCE + 2):
        await stack.create(principal(f"tenant{number}"))
    busy, most, full = 0, 0, asyncio.Event()

    async def step(job: Job) -> JobProgress:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        if busy == JOBS_AT_ONCE:
            full.set()
        await asyncio.wait_for(full.wait(), DEADLINE_S)
        busy -= 1
        return wait_for(job, "nothing more")

    await worker(stack, step).step()
    assert most == JOBS_AT_ONCE


async def test_one_job_that_cannot_be_brought_further_ends_no_other(stack: FinetuneStack) -> None:
    bad, good = await stack.create(), await stack.create(principal("rival"))
    failed = asyncio.Event()

    async def step(job: Job) -> JobProgress:
        if job.id == bad.id:
            failed.set()
            raise RuntimeError("a bug")
        await asyncio.wait_for(failed.wait(), DEADLINE_S)
        await asyncio.sleep(0)
        return wait_for(job, "nothing more")

    with pytest.raises(ExceptionGroup, match="could not be brought further"):
        await worker(stack, step).step()
    assert (await stack.job(good.id)).waits_for == "nothing more"


async def test_a_worker_that_is_told_to_end_ends_its_work(stack: FinetuneStack) -> None:
    job = await stack.create()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def step(found: Job) -> JobProgress:
        begun.set()
        try:
            await asyncio.sleep(DEADLINE_S)
        finally:
            ended.set()
        return wait_for(found, "ever")

    working = asyncio.create_task(worker(stack, step).step())
    await asyncio.wait_for(begun.wait(), DEADLINE_S)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert ended.is_set()
    stack.clock.advance(6)
    assert [one.id for one in await stack.operator.claim("other", limit=1)] == [job.id], "handed over at once"
