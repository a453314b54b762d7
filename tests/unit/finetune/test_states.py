"""What OpenAI's API says of each state, and what may never follow."""

import pytest

from tokenyard.finetune.states import IllegalTransition, JobOutcome, JobState, check_transition, outward


@pytest.mark.parametrize(
    ("state", "outcome", "status"),
    [
        (JobState.CREATING, None, "validating_files"),
        (JobState.VALIDATING, None, "validating_files"),
        (JobState.QUEUED, None, "queued"),
        (JobState.RUNNING, None, "running"),
        (JobState.PAUSING, None, "running"),
        (JobState.RESUMING, None, "running"),
        (JobState.PAUSED, None, "paused"),
        (JobState.COMPARING, None, "running"),
        (JobState.CHECKING, None, "running"),
        (JobState.STOPPING, JobOutcome.FAILED, "running"),
        (JobState.STOPPING, JobOutcome.CANCELLED, "cancelled"),
        (JobState.SETTLING, JobOutcome.SUCCEEDED, "running"),
        (JobState.SETTLING, JobOutcome.FAILED, "running"),
        (JobState.SETTLING, JobOutcome.CANCELLED, "cancelled"),
        (JobState.SUCCEEDED, JobOutcome.SUCCEEDED, "succeeded"),
        (JobState.FAILED, JobOutcome.FAILED, "failed"),
        (JobState.CANCELLED, JobOutcome.CANCELLED, "cancelled"),
    ],
)
def test_the_outward_status(state: JobState, outcome: JobOutcome | None, status: str) -> None:
    assert outward(state, outcome) == status


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (JobState.QUEUED, JobState.CHECKING, None),
        (JobState.RUNNING, JobState.SETTLING, JobOutcome.SUCCEEDED),  # past the gate
        (JobState.CHECKING, JobState.STOPPING, JobOutcome.SUCCEEDED),
        (JobState.RUNNING, JobState.STOPPING, None),
        (JobState.RUNNING, JobState.PAUSED, None),  # past the end of its run
        (JobState.PAUSED, JobState.RUNNING, None),  # past the queue
        (JobState.PAUSING, JobState.RUNNING, None),
        (JobState.CHECKING, JobState.PAUSED, None),
        (JobState.CHECKING, JobState.COMPARING, None),
        (JobState.QUEUED, JobState.COMPARING, None),
        (JobState.COMPARING, JobState.SUCCEEDED, JobOutcome.SUCCEEDED),  # past the usage event
        (JobState.VALIDATING, JobState.QUEUED, JobOutcome.FAILED),
        (JobState.SETTLING, JobState.SUCCEEDED, JobOutcome.CANCELLED),
        (JobState.CHECKING, JobState.SUCCEEDED, JobOutcome.SUCCEEDED),  # past the usage event
        (JobState.SUCCEEDED, JobState.RUNNING, None),
        (JobState.CANCELLED, JobState.SETTLING, JobOutcome.CANCELLED),
    ],
)
def test_no_state_is_skipped_or_left_again(before: JobState, after: JobState, outcome: JobOutcome | None) -> None:
    with pytest.raises(IllegalTransition):
        check_transition(before, after, outcome)
