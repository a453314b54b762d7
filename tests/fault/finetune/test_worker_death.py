"""A worker dies at every point where it touches the world; another one brings the job to the same end."""

import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from support.finetune.mortal import Countdown, lives, stack_on
from support.finetune.rows import rows
from support.finetune.stack import FinetuneStack, principal
from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Job
from tokenyard.finetune.states import FINISHED, JobState
from tokenyard.finetune.tables import CheckpointRow

QUESTIONS = 2
_ENDED = FINISHED - {JobState.EVALUATING}


async def _life(stack: FinetuneStack, dies_at: int | None, scenario: str) -> Countdown:
    """Run one job to its end: by a worker that dies, then by one that does not."""
    job = await _created(stack, scenario)
    countdown = Countdown(dies_at)

    async def has_ended() -> bool:
        await _world(stack, job, scenario)
        return (await stack.job(job.id)).state in _ENDED and await _none_is_due(stack)

    await lives(stack, countdown, has_ended)
    await _check(stack, job, scenario)
    return countdown


async def _created(stack: FinetuneStack, scenario: str) -> Job:
    match scenario:
        case "brought":
            return await stack.bring()
        case "checkpoints":
            return await stack.create(callable_checkpoints=2)
        case "evaluated":
            held_out = await stack.upload(principal(), rows(QUESTIONS))
            return await stack.create(validation_file=held_out, evaluation={"rows": QUESTIONS})
    return await stack.create()


async def _none_is_due(stack: FinetuneStack) -> bool:
    async with stack.database.reading() as session:
        return await session.scalar(select(CheckpointRow.id).where(CheckpointRow.due_ms.is_not(None))) is None


async def _world(stack: FinetuneStack, job: Any, scenario: str) -> None:
    """Do what the cluster and the tenant do meanwhile."""
    for run in [name for name, status in stack.cluster.runs.items() if status.state.is_active]:
        if scenario == "lost" and run.endswith("-1"):
            await stack.cluster.begin(run)
            await stack.cluster.train(run, 5, tokens=50)
            stack.cluster.forget(run)
        elif scenario == "paused" and run.endswith("-1"):
            await stack.cluster.begin(run)
            await stack.cluster.train(run, 5, tokens=50)
            await stack.pausing.pause(job.organization, job.id)
            if await stack.cluster.has_to_pause(run):
                await stack.cluster.pause(run, tokens=50)
        elif scenario == "cancel":
            await stack.cluster.tell(run, "Step 1")
            await stack.jobs.cancel(job.organization, job.id)
        else:
            await stack.cluster.tell(run, "Step 1", "Step 2", total=30)
            for seq, step in enumerate((10, 20, 30), 3) if scenario == "checkpoints" else ():
                await stack.cluster.checkpoint(run, step, seq=seq)
            await stack.cluster.succeed(run, tokens=400)
    if (await stack.job(job.id)).state is JobState.PAUSED:
        await stack.pausing.resume(job.organization, job.id)


async def _check(stack: FinetuneStack, job: Any, scenario: str) -> None:
    end = await stack.job(job.id)
    assert end.state is (JobState.CANCELLED if scenario == "cancel" else JobState.SUCCEEDED)
    assert not any(run.state.is_active for run in stack.cluster.runs.values())
    assert len(stack.cluster.submissions) == len(set(stack.cluster.submissions))
    assert {(event.job, event.trained_tokens) for event in await stack.charges()} == {(job.id, end.trained_tokens)}
    assert end.slot is None
    messages = await stack.messages(end)
    assert len(messages) == len(set(messages)), "every event is there once"
    live = [adapter for adapter, life in stack.catalog.lives.items() if life[-1] == "live"]
    hosted = {"cancel": set(), "checkpoints": {f"{end.adapter}-step-20", end.adapter}}
    assert set(live) == hosted.get(scenario, {end.adapter})
    assert stack.reservations.open[job.id] == end.reserved_amount
    if scenario == "brought":
        assert (stack.cluster.submissions, end.trained_tokens) == ([], 0)
    if scenario == "evaluated":
        assert await stack.files.get(job.organization, FileId(str(end.evaluation_file)))
        assert sorted(stack.answers.charged.values()) == [1] * 2 * QUESTIONS, "no answer is asked for, or paid, twice"
    if scenario in ("lost", "paused"):
        assert stack.cluster.submissions == [f"{job.id}-1", f"{job.id}-2"]
        assert stack.cluster.specs[f"{job.id}-2"].resume_url is not None


# The longer stories share most of their points with the plain one, so only some of theirs are tried.
EVERY = {"plain": 1, "lost": 6, "cancel": 4, "paused": 6, "brought": 2, "checkpoints": 14, "evaluated": 6}
if "EVERY_POINT" in os.environ:
    EVERY = dict.fromkeys(EVERY, 1)


@pytest.mark.parametrize("scenario", EVERY)
async def test_any_point_of_death_leads_to_the_same_end(tmp_path: Path, empty_sqlite: Path, scenario: str) -> None:
    stack = stack_on(tmp_path / "alive", empty_sqlite)
    calls = (await _life(stack, None, scenario)).calls
    await stack.database.close()
    assert calls > 20
    for dies_at in range(0, calls, EVERY[scenario]):
        stack = stack_on(tmp_path / f"{dies_at}", empty_sqlite)
        countdown = await _life(stack, dies_at, scenario)
        assert countdown.is_dead
        await stack.database.close()
