"""Sweeps through the worker's real loops: trials wait for each other, the best is published, all pay for themselves."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from support.finetune.ports import TRAINING_RATE
from support.finetune.stack import FinetuneStack, principal
from tokenyard.core.errors import InvalidRequest, RateLimited
from tokenyard.core.ids import JobId
from tokenyard.core.money import to_dollars
from tokenyard.core.training import TrainingLimits, TrainingTerms
from tokenyard.finetune.job import Job
from tokenyard.finetune.states import JobState
from tokenyard.finetune.sweeps.creation import SweepCreation
from tokenyard.finetune.sweeps.sweep import Sweep
from tokenyard.finetune.sweeps.sweep_request import SweepRequest
from tokenyard.finetune.sweeps.views import SweepEstimateView, SweepView
from tokenyard.finetune.views import CheckpointView, JobView

BASE_LOSS = 2.0
TOKENS = 400


async def trains(stack: FinetuneStack, trial: Job, loss: float, **more: Any) -> None:
    """Let a trial be trained to its end, with what it measures."""
    run = f"{trial.id}-1"
    for _ in range(4):
        if run in stack.cluster.runs:
            break
        await stack.round()
    metrics = {"base_valid_loss": BASE_LOSS, "valid_loss": loss}
    await stack.cluster.succeed(run, tokens=TOKENS, metrics=metrics, **more)
    await stack.round()


async def state_of(stack: FinetuneStack, sweep: Sweep) -> list[JobState]:
    return [trial.state for trial in (await stack.sweeps.get(principal().organization, sweep.id)).trials]


async def end_of(stack: FinetuneStack, sweep: Sweep) -> list[Job]:
    for _ in range(5):
        found = await stack.sweeps.get(principal().organization, sweep.id)
        if found.has_ended:
            return list(found.trials)
        await stack.round()
    raise AssertionError("the sweep does not end")


def live(stack: FinetuneStack) -> list[str]:
    return [adapter for adapter, life in stack.catalog.lives.items() if life[-1] == "live"]


async def charged(stack: FinetuneStack) -> dict[JobId, tuple[int, str]]:
    charges = await stack.charges()
    found = {event.job: (event.trained_tokens, event.model) for event in charges}
    assert len(found) == len(charges), "each job is charged once"
    return found


async def test_the_best_is_published_and_the_others_are_paid_for(stack: FinetuneStack) -> None:
    sweep = await stack.sweep(sweep={"learning_rate_multiplier": [1, 2, 4]})
    first, second, third = sweep.trials
    await trains(stack, first, 1.5)
    await trains(stack, second, 1.0)
    assert (await state_of(stack, sweep))[:2] == [JobState.COMPARING] * 2
    assert JobView.of(await stack.job(first.id)).status == "running"
    assert live(stack) == []
    await trains(stack, third, 1.25)
    ends = await end_of(stack, sweep)
    assert [end.state for end in ends] == [JobState.SUCCEEDED] * 3
    assert [JobView.of(end).fine_tuned_model for end in ends] == [None, str(ends[1].model_name), None]
    assert [end.better_trial for end in ends] == [second.id, None, second.id]
    assert live(stack) == [ends[1].adapter]
    assert set(stack.catalog.lives) == {ends[1].adapter}, "the others were never registered"
    assert await charged(stack) == {
        first.id: (TOKENS, "small-model"),
        second.id: (TOKENS, str(ends[1].model_name)),
        third.id: (TOKENS, "small-model"),
    }
    assert (
        f"The trial {second.id} of the sweep is kept in place of this one, which leaves no model: loss 1.0000 against "
        "2.0000 there, loss 1.5000 against 2.0000 here (tuned model against base)"
    ) in await stack.messages(first)
    assert not [message for message in await stack.messages(first) if message.startswith("New fine-tuned model")]


async def test_the_sweep_says_what_came_of_it(stack: FinetuneStack) -> None:
    sweep = await stack.sweep()
    first, second = sweep.trials
    await trains(stack, first, 1.0)
    under_way = SweepView.of(await stack.sweeps.get(principal().organization, sweep.id))
    assert (under_way.status, under_way.best_trial, under_way.finished_at) == ("running", None, None)
    assert [trial.held_out is not None for trial in under_way.trials] == [True, False]
    await trains(stack, second, 1.5)
    view = SweepView.of(Sweep(tuple(await end_of(stack, sweep))))
    assert (view.status, view.best_trial) == ("succeeded", first.id)
    assert view.fine_tuned_model == view.trials[0].fine_tuned_model is not None
    assert view.finished_at is not None
    figures = [
        (trial.held_out.figure, trial.held_out.tuned, trial.held_out.base) for trial in view.trials if trial.held_out
    ]
    assert figures == [("loss", 1.0, BASE_LOSS), ("loss", 1.5, BASE_LOSS)]
    assert [trial.hyperparameters.learning_rate_multiplier for trial in view.trials] == [1, 2]
    assert {trial.cost_dollars for trial in view.trials} == {to_dollars(TOKENS * TRAINING_RATE)}
    assert view.cost_dollars == to_dollars(2 * TOKENS * TRAINING_RATE)
    with pytest.raises(InvalidRequest) as refused:
        await stack.sweeps.cancel(principal().organization, sweep.id)
    assert refused.value.code == "sweep_not_cancellable"


async def test_waiting_takes_no_place_of_a_plan_and_no_lease(stack: FinetuneStack) -> None:
    stack.plans.said[principal().organization] = TrainingTerms(limits=TrainingLimits(running=1))
    sweep = await stack.sweep()
    first, second = sweep.trials
    await trains(stack, first, 1.0)
    await stack.rounds(2)
    waiting = await stack.job(first.id)
    assert (waiting.state, waiting.slot, waiting.deadline_ms) == (JobState.COMPARING, None, None)
    assert (await stack.job(second.id)).state is JobState.RUNNING
    stack.clock.advance(86_400)
    await stack.rounds(2)
    assert await stack.job(first.id) == waiting, "nobody touches it, and it has no time to run out"
    stack.outlive_leases()
    assert first.id not in [job.id for job in await stack.operator.claim("other", limit=9)]
    for call, code in ((stack.pausing.pause, "job_not_pausable"), (stack.pausing.resume, "job_not_paused")):
        with pytest.raises(InvalidRequest) as refused:
            await call(first.organization, first.id)
        assert refused.value.code == code
    assert await stack.job(first.id) == waiting


async def test_a_trial_that_is_paused_is_waited_for_and_its_end_resolves(stack: FinetuneStack) -> None:
    sweep = await stack.sweep()
    first, second = sweep.trials
    await stack.pausing.pause(second.organization, second.id)
    await trains(stack, first, 1.0)
    await stack.rounds(3)
    assert await state_of(stack, sweep) == [JobState.COMPARING, JobState.PAUSED]
    stack.clock.advance(stack.policy.paused_limit_s + 1)
    ends = await end_of(stack, sweep)
    assert [end.state for end in ends] == [JobState.SUCCEEDED, JobState.CANCELLED]
    assert live(stack) == [ends[0].adapter]


async def test_a_trial_that_fails_or_is_cancelled_is_none_to_wait_for(stack: FinetuneStack) -> None:
    sweep = await stack.sweep(sweep={"n_epochs": [1, 2, 3]})
    first, second, third = sweep.trials
    await trains(stack, first, 1.0)
    await stack.rounds(2)
    await stack.cluster.fail(f"{second.id}-1", "out_of_memory", "There was too little memory.")
    await stack.rounds(2)
    assert (await stack.job(first.id)).state is JobState.COMPARING
    await stack.jobs.cancel(third.organization, third.id)
    ends = await end_of(stack, sweep)
    assert [end.status for end in ends] == ["succeeded", "failed", "cancelled"]
    assert live(stack) == [ends[0].adapter]
    assert [tokens for tokens, _ in (await charged(stack)).values()].count(0) == 2
    assert SweepView.of(Sweep(tuple(ends))).status == "succeeded"


async def test_where_all_fail_nothing_is_kept_or_paid(stack: FinetuneStack) -> None:
    sweep = await stack.sweep()
    for trial in sweep.trials:
        await stack.rounds(3)
        await stack.cluster.fail(f"{trial.id}-1", "out_of_memory", "There was too little memory.")
    view = SweepView.of(Sweep(tuple(await end_of(stack, sweep))))
    assert (view.status, view.best_trial, view.cost_dollars) == ("failed", None, "0.00")
    assert [trial.error and trial.error.code for trial in view.trials] == ["out_of_memory"] * 2
    assert live(stack) == []


async def test_where_the_best_is_no_better_than_the_base_none_is(stack: FinetuneStack) -> None:
    sweep = await stack.sweep()
    for trial, loss in zip(sweep.trials, (BASE_LOSS + 1, BASE_LOSS), strict=True):
        await trains(stack, trial, loss)
    ends = await end_of(stack, sweep)
    assert [end.error and end.error.code for end in ends] == ["no_improvement"] * 2
    assert live(stack) == []
    assert {tokens for tokens, _ in (await charged(stack)).values()} == {TOKENS}


async def test_a_worse_one_is_published_where_that_was_asked_for_and_only_the_best(stack: FinetuneStack) -> None:
    sweep = await stack.sweep(publish_if_worse=True)
    for trial, loss in zip(sweep.trials, (BASE_LOSS + 1, BASE_LOSS), strict=True):
        await trains(stack, trial, loss)
    ends = await end_of(stack, sweep)
    assert [end.status for end in ends] == ["succeeded"] * 2
    assert live(stack) == [ends[1].adapter]


async def test_where_the_best_does_not_pass_the_gate_the_next_best_is_kept(stack: FinetuneStack) -> None:
    sweep = await stack.sweep()
    await trains(stack, sweep.trials[0], 1.5)
    await trains(stack, sweep.trials[1], 1.0, rank=512)
    ends = await end_of(stack, sweep)
    assert [end.status for end in ends] == ["succeeded", "failed"]
    assert ends[1].error is not None
    assert ends[1].error.code == "model_check_failed"
    assert live(stack) == [ends[0].adapter]


async def test_answers_are_compared_of_the_kept_model_alone(stack: FinetuneStack) -> None:
    sweep = await stack.sweep(evaluation={"rows": 2})
    for trial, loss in zip(sweep.trials, (1.5, 1.0), strict=True):
        await trains(stack, trial, loss)
    ends = await end_of(stack, sweep)
    assert {model for model, _, _ in stack.answers.asked} == {"small-model", str(ends[1].model_name)}
    assert all(end.evaluation_file is not None for end in ends)


async def test_checkpoints_keep_their_names(stack: FinetuneStack) -> None:
    sweep = await stack.sweep()
    for trial, loss in zip(sweep.trials, (1.5, 1.0), strict=True):
        await trains(stack, trial, loss)
    before = await stack.job(sweep.trials[0].id)
    [row] = await stack.jobs.checkpoints(before.organization, before.id, limit=2, after=None)
    name = CheckpointView.of(row, before, ()).fine_tuned_model_checkpoint
    loser = (await end_of(stack, sweep))[0]
    assert CheckpointView.of(row, loser, ()).fine_tuned_model_checkpoint == name
    assert name.startswith("ft:small-model:acme:sky:")


async def test_two_workers_publish_one(stack: FinetuneStack) -> None:
    sweep = await stack.sweep(sweep={"learning_rate_multiplier": [1, 2, 4]})
    for trial, loss in zip(sweep.trials[:2], (1.5, 1.0), strict=True):
        await trains(stack, trial, loss)
    await stack.rounds(2)
    run = f"{sweep.trials[2].id}-1"
    await stack.cluster.succeed(run, tokens=TOKENS, metrics={"base_valid_loss": BASE_LOSS, "valid_loss": 1.2})
    workers = [stack.new_worker(), stack.new_worker()]
    for _ in range(6):
        await asyncio.gather(*(stack.round(worker) for worker in workers))
    ends = await end_of(stack, sweep)
    assert [end.status for end in ends] == ["succeeded"] * 3
    assert live(stack) == [ends[1].adapter]
    assert len(await charged(stack)) == 3


async def test_cancelling_a_sweep_ends_all_its_trials_at_one_moment(stack: FinetuneStack) -> None:
    sweep = await stack.sweep(sweep={"learning_rate_multiplier": [1, 2, 4]})
    organization = principal().organization
    await trains(stack, sweep.trials[0], 1.0)
    await stack.rounds(1)
    cancelled = await stack.sweeps.cancel(organization, sweep.id)
    assert (cancelled.status, {trial.status for trial in cancelled.trials}) == ("cancelled", {"cancelled"})
    assert await stack.sweeps.cancel(organization, sweep.id) == cancelled
    ends = await end_of(stack, sweep)
    assert [end.trained_tokens for end in ends] == [TOKENS, 0, 0], "each pays for the steps that it made"
    assert live(stack) == []


async def test_a_cancelled_best_leaves_its_turn_to_the_next(stack: FinetuneStack) -> None:
    stack.replicas.lost = True
    sweep = await stack.sweep()
    for trial, loss in zip(sweep.trials, (1.5, 1.0), strict=True):
        await trains(stack, trial, loss)
    await stack.rounds(2)
    assert await state_of(stack, sweep) == [JobState.COMPARING, JobState.CHECKING]
    await stack.jobs.cancel(sweep.trials[1].organization, sweep.trials[1].id)
    stack.replicas.lost = False
    ends = await end_of(stack, sweep)
    assert [end.status for end in ends] == ["succeeded", "cancelled"]
    assert live(stack) == [ends[0].adapter]


async def jobs_of(stack: FinetuneStack) -> Sequence[Job]:
    return await stack.jobs.page(principal().organization, limit=99, after=None, metadata=None)


async def test_the_limit_of_unfinished_jobs_counts_each_trial(stack: FinetuneStack) -> None:
    stack.plans.said[principal().organization] = TrainingTerms(limits=TrainingLimits(unfinished=3))
    await stack.create()
    await stack.create()
    with pytest.raises(RateLimited, match=r"2 unfinished .* may have 3; these would be 2 more"):
        await stack.sweep()
    with pytest.raises(InvalidRequest) as refused:
        await stack.sweep(sweep={"n_epochs": [1, 2, 3, 4]})
    assert refused.value.code == "too_many_jobs"
    assert len(await jobs_of(stack)) == 2


async def test_the_estimate_is_what_is_reserved_and_bounds_the_charge(stack: FinetuneStack) -> None:
    asked: dict[str, Any] = {
        "model": "small-model",
        "training_file": (await stack.sweep()).trials[0].training_file,
        "validation_file": (await stack.sweep()).trials[0].validation_file,
        "sweep": {"n_epochs": [1, 3], "batch_size": [2, 4]},
    }
    before = len(await jobs_of(stack))
    request = SweepRequest.model_validate(asked)
    known = SweepEstimateView.of(await SweepCreation(stack.creation).estimate(principal(), request))
    assert len(await jobs_of(stack)) == before
    sweep = await stack.sweep(**asked)
    reserved = [stack.reservations.open[trial.id] for trial in sweep.trials]
    assert [trial.max_tokens * TRAINING_RATE for trial in known.trials] == reserved
    assert known.max_tokens * TRAINING_RATE == sum(reserved)
    assert known.max_cost_dollars == SweepView.of(sweep).max_cost_dollars
    assert [trial.steps for trial in known.trials] == [10, 5, 30, 15]
    assert (known.expected_tokens, known.expected_cost_dollars, known.expected_seconds) == (None, None, None)


async def test_what_trained_before_tells_what_a_sweep_will_take(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", *["a step"] * 5, total=5)
    await stack.cluster.succeed(f"{job.id}-1", tokens=job.reserved_tokens // 2)
    await stack.rounds(3)
    files = {"training_file": job.training_file, "validation_file": job.training_file}
    request = SweepRequest.model_validate({"model": "small-model", **files, "sweep": {"n_epochs": [10, 20]}})
    known = SweepEstimateView.of(await SweepCreation(stack.creation).estimate(principal(), request))
    each = [trial.expected_tokens for trial in known.trials]
    assert known.expected_tokens == sum(tokens or 0 for tokens in each)
    assert known.expected_tokens == pytest.approx(1.5 * job.reserved_tokens, abs=3)
    assert known.expected_seconds == 15
    assert known.expected_cost_dollars == to_dollars(known.expected_tokens * TRAINING_RATE)
