"""A worker dies at every point of a sweep; another one keeps the best trial, once, and charges each once."""

from pathlib import Path
from typing import Any

from support.finetune.mortal import Countdown, Died, Mortal, lives, stack_on
from support.finetune.rows import rows
from support.finetune.stack import FinetuneStack, principal
from tokenyard.finetune.states import JobState
from tokenyard.finetune.store import CREATION_LEASE_MS, JobStore
from tokenyard.finetune.sweeps.sweep import Sweep
from tokenyard.webhooks.events import write_event

LOSSES = (1.5, 1.0)
TOKENS = 400
EVERY = 6


async def _trained(stack: FinetuneStack) -> Sweep:
    """Return a sweep whose trials are all trained, as far as the cluster knows."""
    sweep = await stack.sweep()
    for trial, loss in zip(sweep.trials, LOSSES, strict=True):
        run = f"{trial.id}-1"
        while run not in stack.cluster.runs:
            await stack.round()
        await stack.cluster.succeed(run, tokens=TOKENS, metrics={"base_valid_loss": 2.0, "valid_loss": loss})
    return sweep


async def _life(stack: FinetuneStack, dies_at: int | None) -> Countdown:
    """Bring a sweep to its end: by a worker that dies, then by one that does not."""
    sweep = await _trained(stack)
    countdown = Countdown(dies_at)

    async def has_ended() -> bool:
        return (await stack.sweeps.get(principal().organization, sweep.id)).has_ended

    await lives(stack, countdown, has_ended)
    await _check(stack, sweep)
    return countdown


async def _check(stack: FinetuneStack, sweep: Sweep) -> None:
    worse, best = (await stack.sweeps.get(principal().organization, sweep.id)).trials
    assert (worse.state, best.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED)
    assert (worse.better_trial, best.better_trial) == (best.id, None)
    assert stack.catalog.lives == {best.adapter: ["checking", "live"]}
    charges = [(event.job, event.trained_tokens, event.model) for event in await stack.charges()]
    expected = [(best.id, TOKENS, str(best.model_name)), (worse.id, TOKENS, "small-model")]
    assert sorted(charges) == sorted(expected)
    for trial in (worse, best):
        messages = await stack.messages(trial)
        assert len(messages) == len(set(messages)), "every event is there once"


async def test_any_point_of_death_leads_to_the_same_end(tmp_path: Path, empty_sqlite: Path) -> None:
    stack = stack_on(tmp_path / "alive", empty_sqlite)
    calls = (await _life(stack, None)).calls
    await stack.database.close()
    assert calls > 40
    for dies_at in range(0, calls, EVERY):
        stack = stack_on(tmp_path / f"{dies_at}", empty_sqlite)
        countdown = await _life(stack, dies_at)
        assert countdown.is_dead
        await stack.database.close()


async def _creator_dies(stack: FinetuneStack, dies_at: int | None) -> Countdown:
    """Create a sweep, in a process that dies meanwhile, and send it again under its key when the worker has tidied."""
    countdown = Countdown(dies_at)
    database: Any = Mortal(stack.database, countdown)
    alive = stack.creation
    stack.creation = stack.new_creation(
        jobs=JobStore(database, stack.clock, stack.files, write_event, max_unfinished=len(LOSSES)),
        reservations=Mortal(stack.reservations, countdown),
    )
    files: dict[str, Any] = {
        name: await stack.upload(principal(), rows(20)) for name in ("training_file", "validation_file")
    }
    try:
        await stack.sweep(key="once", **files)
    except Died:
        stack.clock.advance(CREATION_LEASE_MS / 1000 + 1)
        await stack.rounds(2)
    stack.creation = alive
    again = await stack.sweep(key="once", **files)
    mine = {trial.id for trial in again.trials}
    assert [trial.trial for trial in again.trials] == [0, 1]
    assert mine <= set(stack.reservations.open)
    closed = {event.job for event in await stack.charges() if event.trained_tokens == 0}
    assert set(stack.reservations.open) - mine <= closed, "what a dead creation reserved is given back"
    assert mine.isdisjoint(closed)
    ended = await stack.jobs.page(principal().organization, limit=9, after=None, metadata=None)
    assert {job.status for job in ended if job.id not in mine} <= {"failed"}
    return countdown


async def test_wherever_its_creator_dies_a_sweep_is_there_as_a_whole_or_not(tmp_path: Path, empty_sqlite: Path) -> None:
    stack = stack_on(tmp_path / "alive", empty_sqlite)
    calls = (await _creator_dies(stack, None)).calls
    await stack.database.close()
    assert calls >= 6
    for dies_at in range(calls):
        stack = stack_on(tmp_path / f"{dies_at}", empty_sqlite)
        assert (await _creator_dies(stack, dies_at)).is_dead
        await stack.database.close()
