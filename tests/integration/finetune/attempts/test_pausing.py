"""Jobs that are paused and resumed, also while a worker, a cancel or the end of training comes in between."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from support.finetune.stack import FinetuneStack, principal
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.training import RunState
from tokenyard.finetune.job import Job
from tokenyard.finetune.progress import JobChanged
from tokenyard.finetune.states import FINISHED, JobState

ACME, RIVAL = principal().organization, principal("rival").organization
Change = Callable[[FinetuneStack, Job], Awaitable[Job]]


async def pause(stack: FinetuneStack, job: Job) -> Job:
    return await stack.pausing.pause(job.organization, job.id)


async def resume(stack: FinetuneStack, job: Job) -> Job:
    return await stack.pausing.resume(job.organization, job.id)


async def cancel(stack: FinetuneStack, job: Job) -> Job:
    return await stack.jobs.cancel(job.organization, job.id)


async def training(stack: FinetuneStack, *, step: int = 7, tokens: int = 70) -> Job:
    """Return a job that trains and has come to `step`."""
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.begin(f"{job.id}-1")
    await stack.cluster.train(f"{job.id}-1", step, tokens=tokens)
    await stack.rounds(1)
    return job


async def paused_job(stack: FinetuneStack) -> Job:
    job = await training(stack)
    await pause(stack, job)
    await stack.rounds(1)
    await stack.cluster.pause(f"{job.id}-1", tokens=70)
    await stack.rounds(2)
    return job


async def state(stack: FinetuneStack, job: Job) -> JobState:
    return (await stack.job(job.id)).state


async def test_a_paused_job_gives_its_slot_away_and_goes_on_from_its_step(stack: FinetuneStack) -> None:
    job = await training(stack)
    waiting = await stack.create(principal("rival"))
    assert (await pause(stack, job)).status == "running"
    await stack.rounds(1)
    assert await stack.cluster.has_to_pause(f"{job.id}-1")
    assert await pause(stack, job) == await stack.job(job.id), "again is nothing"
    await stack.cluster.pause(f"{job.id}-1", tokens=70)
    await stack.rounds(3)
    resting = await stack.job(job.id)
    assert (resting.status, resting.slot, resting.outcome) == ("paused", None, None)
    assert await state(stack, waiting) is JobState.RUNNING
    assert stack.reservations.open[job.id] == resting.reserved_amount
    assert await stack.charges() == []
    assert stack.cluster.stops == []

    assert (await resume(stack, job)).status == "queued"
    assert (await resume(stack, job)).status == "queued"
    await stack.cluster.succeed(f"{waiting.id}-1", tokens=5)
    await stack.rounds(4)
    assert stack.cluster.specs[f"{job.id}-2"].resume_url == stack.cluster.specs[f"{job.id}-1"].output_url
    await stack.cluster.succeed(f"{job.id}-2", tokens=1000)
    await stack.rounds(3)
    done = await stack.job(job.id)
    assert (done.status, done.trained_tokens, done.lost_attempts) == ("succeeded", 1000, 0)
    messages = await stack.messages(job)
    assert [message for message in messages if "paus" in message.lower() or "resumed" in message] == [
        "Pausing: training ends with its next step",
        "The fine-tuning job is paused after step 7 of 100",
        "The job was resumed",
    ]


@pytest.mark.parametrize("rounds", [0, 1], ids=["validating", "queued"])
async def test_what_does_not_train_yet_is_paused_at_once(stack: FinetuneStack, rounds: int) -> None:
    first = await stack.create(principal("rival")) if rounds else None
    job = await stack.create()
    await stack.rounds(rounds)
    assert (await pause(stack, job)).status == "paused"
    await stack.rounds(3)
    assert (await stack.job(job.id)).status == "paused"
    if first:
        await stack.cluster.succeed(f"{first.id}-1", tokens=5)
    await resume(stack, job)
    await stack.rounds(4)
    assert await state(stack, job) is JobState.RUNNING
    assert stack.cluster.specs[f"{job.id}-1"].resume_url is None


async def test_an_own_adapter_can_be_paused_before_it_is_taken_in(stack: FinetuneStack) -> None:
    job = await stack.bring()
    assert (await pause(stack, job)).status == "paused"
    await resume(stack, job)
    await stack.rounds(3)
    assert (await stack.job(job.id)).status == "succeeded"


async def test_a_run_that_does_not_end_by_itself_is_stopped(stack: FinetuneStack) -> None:
    job = await training(stack)
    await pause(stack, job)
    await stack.rounds(1)
    assert stack.cluster.stops == []
    stack.clock.advance(stack.policy.pausing_timeout_s)
    await stack.rounds(3)
    assert stack.cluster.stops == [f"{job.id}-1"]
    assert await state(stack, job) is JobState.PAUSED
    await resume(stack, job)
    await stack.rounds(2)
    assert stack.cluster.specs[f"{job.id}-2"].resume_url == stack.cluster.specs[f"{job.id}-1"].output_url


async def test_a_run_without_room_is_stopped_at_once(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await pause(stack, job)
    await stack.rounds(2)
    assert stack.cluster.stops == [f"{job.id}-1"]
    assert await state(stack, job) is JobState.PAUSED


async def test_training_that_ends_while_it_is_paused_is_not_held_up(stack: FinetuneStack) -> None:
    job = await training(stack)
    await pause(stack, job)
    await stack.cluster.succeed(f"{job.id}-1", tokens=1000)
    await stack.rounds(2)
    assert (await stack.job(job.id)).status == "succeeded"


@pytest.mark.parametrize("lost", [RunState.FAILED, None])
async def test_a_run_that_is_lost_while_it_is_paused_is_not_one_of_its_three(
    stack: FinetuneStack, lost: RunState | None
) -> None:
    job = await training(stack)
    await pause(stack, job)
    if lost is None:
        stack.cluster.forget(f"{job.id}-1")
    else:
        stack.cluster.set_state(f"{job.id}-1", lost)
    await stack.rounds(1)
    resting = await stack.job(job.id)
    assert (resting.state, resting.lost_attempts) == (JobState.PAUSED, 0)


async def test_resumed_before_it_had_paused_it_goes_on(stack: FinetuneStack) -> None:
    job = await training(stack)
    await pause(stack, job)
    await stack.rounds(1)
    assert (await resume(stack, job)).status == "running"
    await stack.cluster.pause(f"{job.id}-1", tokens=70)
    await stack.rounds(3)
    assert await state(stack, job) is JobState.RUNNING
    assert stack.cluster.submissions == [f"{job.id}-1", f"{job.id}-2"]


async def test_a_job_that_is_paused_again_and_again_keeps_one_point(stack: FinetuneStack) -> None:
    job = await training(stack)
    for attempt in range(1, 5):
        await pause(stack, job)
        await stack.rounds(1)
        await stack.cluster.pause(f"{job.id}-{attempt}", tokens=70)
        await stack.rounds(1)
        await resume(stack, job)
        await stack.rounds(2)
        run = f"{job.id}-{attempt + 1}"
        await stack.cluster.begin(run)
        await stack.cluster.train(run, 7 + attempt, tokens=70 + attempt)
        kept = [
            number
            for number in range(1, attempt + 2)
            if await stack.blobs.names(f"jobs/org_acme/{job.id}/{number}/resume")
        ]
        assert kept == [attempt, attempt + 1]
    await cancel(stack, job)
    await stack.rounds(3)
    assert [event.trained_tokens for event in await stack.charges()] == [74]


async def test_cancelling_a_paused_job_pays_the_steps_that_it_made(stack: FinetuneStack) -> None:
    job = await paused_job(stack)
    assert (await cancel(stack, job)).status == "cancelled"
    await stack.rounds(3)
    assert (await stack.job(job.id)).state is JobState.CANCELLED
    assert [event.trained_tokens for event in await stack.charges()] == [70]


async def test_a_cancelled_run_that_could_say_nothing_pays_the_steps_of_which_something_is_left(
    stack: FinetuneStack,
) -> None:
    job = await training(stack, tokens=123)
    await cancel(stack, job)
    stack.cluster.forget(f"{job.id}-1")
    await stack.rounds(3)
    assert [event.trained_tokens for event in await stack.charges()] == [123]


async def test_paused_for_too_long_it_is_cancelled_and_pays(stack: FinetuneStack) -> None:
    job = await paused_job(stack)
    stack.clock.advance(stack.policy.paused_limit_s - 60)
    await stack.rounds(2)
    assert await state(stack, job) is JobState.PAUSED
    stack.clock.advance(60)
    await stack.rounds(4)
    assert await state(stack, job) is JobState.CANCELLED
    assert [event.trained_tokens for event in await stack.charges()] == [70]
    assert "The fine-tuning job was cancelled: it was paused for more than 7 days" in await stack.messages(job)


async def test_what_has_ended_can_be_neither_paused_nor_resumed(stack: FinetuneStack) -> None:
    job = await training(stack)
    await stack.cluster.succeed(f"{job.id}-1", tokens=5)
    await stack.rounds(3)
    with pytest.raises(InvalidRequest) as refused:
        await pause(stack, job)
    assert refused.value.code == "job_not_pausable"
    with pytest.raises(InvalidRequest) as refused:
        await resume(stack, job)
    assert refused.value.code == "job_not_paused"


async def test_nobody_pauses_or_resumes_the_job_of_another(stack: FinetuneStack) -> None:
    job = await training(stack)
    for change in (stack.pausing.pause, stack.pausing.resume):
        with pytest.raises(NotFound):
            await change(RIVAL, job.id)
    assert await state(stack, job) is JobState.RUNNING


@pytest.mark.parametrize("start", ["queued", "running", "pausing", "paused"])
@pytest.mark.parametrize("pair", [(pause, resume), (pause, cancel), (resume, cancel), (pause, pause)])
async def test_two_at_once_and_a_worker(stack: FinetuneStack, start: str, pair: tuple[Change, Change]) -> None:
    """Whatever comes first, the job comes to rest or to its end, with one charge and no run that nobody wants."""
    job = await _brought_to(stack, start)
    await asyncio.gather(*(_tried(change, stack, job) for change in pair), stack.round())
    for _ in range(4):
        for run in [run for run, status in stack.cluster.runs.items() if status.state.is_active]:
            if await stack.cluster.has_to_pause(run):
                await stack.cluster.pause(run, tokens=70)
        await stack.round()
    after = await stack.job(job.id)
    active = [run for run, status in stack.cluster.runs.items() if status.state.is_active]
    assert active == ([f"{job.id}-{after.attempt}"] if after.state is JobState.RUNNING else [])
    assert (after.slot is not None) == (after.state is JobState.RUNNING)
    assert after.state in {JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED}
    assert len(await stack.charges()) == (after.state in FINISHED)


async def _brought_to(stack: FinetuneStack, start: str) -> Job:
    if start == "queued":
        job = await stack.create()
        await stack.worker[1].step()
        assert await state(stack, job) is JobState.QUEUED
        return job
    job = await (paused_job(stack) if start == "paused" else training(stack))
    if start == "pausing":
        await pause(stack, job)
    return job


async def _tried(change: Change, stack: FinetuneStack, job: Job) -> None:
    try:
        await change(stack, job)
    except (InvalidRequest, JobChanged):
        pass


async def test_checkpoints_are_listed_while_the_job_runs_and_each_once(stack: FinetuneStack) -> None:
    job = await training(stack)
    run = f"{job.id}-1"
    await stack.cluster.tell(run, "Step 1")
    await stack.cluster.checkpoint(run, 10, seq=2)
    await stack.rounds(1)
    listed = await stack.jobs.checkpoints(ACME, job.id, limit=9, after=None)
    assert [row.step_number for row in listed] == [10]
    name = (await stack.job(job.id)).model_name
    assert name is not None, "a checkpoint's name is that of the model to come"

    stack.cluster.forget(run)
    await stack.rounds(2)
    await stack.cluster.checkpoint(f"{job.id}-2", 10, seq=1)  # an epoch's end that is done again
    await stack.cluster.checkpoint(f"{job.id}-2", 20, seq=2)
    await stack.rounds(1)
    listed = await stack.jobs.checkpoints(ACME, job.id, limit=9, after=None)
    assert [row.step_number for row in listed] == [20, 10]
    await stack.cluster.succeed(f"{job.id}-2", tokens=5)
    await stack.rounds(3)
    done = await stack.job(job.id)
    assert (done.status, done.model_name) == ("succeeded", name)
