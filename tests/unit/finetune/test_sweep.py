"""Which trial of a sweep is kept, and when that can be said."""

import pytest

from tokenyard.core.ids import AdapterId, ApiKeyId, FileId, JobId, OrganizationId, PriceId, ProjectId, SweepId
from tokenyard.core.money import NanoDollars
from tokenyard.core.training import Hyperparameters
from tokenyard.finetune.job import Job
from tokenyard.finetune.results.held_out import HeldOut
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.finetune.sweeps.sweep import Sweep, SweepStatus

OUTCOMES = {
    JobState.SUCCEEDED: JobOutcome.SUCCEEDED,
    JobState.EVALUATING: JobOutcome.SUCCEEDED,
    JobState.FAILED: JobOutcome.FAILED,
    JobState.CANCELLED: JobOutcome.CANCELLED,
}


def trial(
    state: JobState,
    loss: float | None = None,
    *,
    outcome: JobOutcome | None = None,
    better: str | None = None,
    reward: float | None = None,
) -> Job:
    figures = {"loss": loss, "reward": reward}
    tuned = {name: value for name, value in figures.items() if value is not None}
    return Job(
        id=JobId(f"ftjob-{loss}"),
        organization=OrganizationId("org_acme"),
        project=ProjectId("proj_acme"),
        key=ApiKeyId("key_acme"),
        organization_slug="acme",
        created_at_ms=0,
        model="small-model",
        suffix="sky",
        seed=1,
        training_file=FileId("file-t"),
        method="supervised",
        hyperparameters=Hyperparameters(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0),
        price=PriceId("p"),
        reserved_tokens=10,
        reserved_amount=NanoDollars(10),
        sweep=SweepId("ftsweep-1"),
        state=state,
        outcome=outcome or OUTCOMES.get(state),
        adapter=AdapterId("a"),
        held_out=HeldOut({"loss": 2.0}, tuned) if tuned else None,
        better_trial=None if better is None else JobId(better),
    )


def turn(*trials: Job) -> int | None:
    found = Sweep(trials).next_checked
    return None if found is None else [one is found for one in trials].index(True)


def waiting(loss: float | None) -> Job:
    return trial(JobState.COMPARING, loss)


def test_the_lowest_loss_is_the_best_and_of_equal_ones_the_first() -> None:
    assert turn(waiting(1.5), waiting(0.5), waiting(1.0)) == 1
    assert turn(waiting(1.0), waiting(0.5), waiting(0.5)) == 1
    assert turn(trial(JobState.COMPARING, reward=0.2), trial(JobState.COMPARING, reward=0.9)) == 1


def test_what_measured_nothing_is_the_last() -> None:
    assert turn(waiting(None), waiting(3.0)) == 1
    assert turn(waiting(None), waiting(None)) == 0, "of those that are all worthless, the first"


@pytest.mark.parametrize(
    "state",
    [
        *(JobState.CREATING, JobState.VALIDATING, JobState.QUEUED, JobState.RUNNING),
        *(JobState.PAUSING, JobState.RESUMING, JobState.PAUSED),
    ],
)
def test_one_that_may_still_be_better_is_waited_for(state: JobState) -> None:
    assert turn(waiting(0.5), trial(state)) is None


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (JobState.STOPPING, JobOutcome.CANCELLED),
        (JobState.STOPPING, JobOutcome.FAILED),
        (JobState.SETTLING, JobOutcome.FAILED),
        (JobState.FAILED, None),
        (JobState.CANCELLED, None),
    ],
)
def test_one_whose_end_is_decided_is_not(state: JobState, outcome: JobOutcome | None) -> None:
    assert turn(waiting(0.5), trial(state, 0.1, outcome=outcome)) == 0


def test_only_one_is_checked_at_a_time_and_the_next_best_follows_where_it_fails() -> None:
    assert turn(trial(JobState.CHECKING, 0.5), waiting(1.0), waiting(0.9)) is None
    assert turn(trial(JobState.SETTLING, 0.5, outcome=JobOutcome.FAILED), waiting(1.0), waiting(0.9)) == 2


def test_once_one_is_kept_no_other_has_a_turn() -> None:
    live = trial(JobState.SETTLING, 0.5, outcome=JobOutcome.SUCCEEDED)
    assert turn(live, waiting(1.0)) is None
    assert Sweep((live, waiting(1.0))).kept is live
    beaten = trial(JobState.SUCCEEDED, 1.0, better="ftjob-0.5")
    assert Sweep((beaten, live)).kept is live


@pytest.mark.parametrize(
    ("trials", "status"),
    [
        ((trial(JobState.SUCCEEDED, 0.5), waiting(1.0)), "running"),
        ((trial(JobState.PAUSED), trial(JobState.CANCELLED)), "running"),
        ((trial(JobState.EVALUATING, 0.5), trial(JobState.SUCCEEDED, 1.0, better="ftjob-0.5")), "succeeded"),
        ((trial(JobState.FAILED), trial(JobState.SUCCEEDED, 1.0)), "succeeded"),
        ((trial(JobState.FAILED), trial(JobState.CANCELLED)), "failed"),
        ((trial(JobState.CANCELLED), trial(JobState.STOPPING, outcome=JobOutcome.CANCELLED)), "cancelled"),
    ],
)
def test_the_status_is_that_of_all_trials(trials: tuple[Job, ...], status: SweepStatus) -> None:
    assert Sweep(trials).status == status
