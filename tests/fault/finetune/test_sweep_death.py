"""A worker dies at every point of a sweep; another one keeps the best trial, once, and charges each once."""

from pathlib import Path

from support.finetune.mortal import Countdown, is_death, mortal_worker, stack_on
from support.finetune.stack import FinetuneStack, principal
from tokenyard.finetune.states import JobState
from tokenyard.finetune.sweeps.sweep import Sweep

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
    worker = mortal_worker(stack, countdown)
    for _ in range(20):
        try:
            await stack.round(worker)
        except BaseException as error:
            if not is_death(error):
                raise
            stack.outlive_leases()
            worker = stack.new_worker()
        if (await stack.sweeps.get(principal().organization, sweep.id)).has_ended:
            break
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
