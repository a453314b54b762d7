"""What OpenAI's API says of each state, and what may never follow."""

import pytest

from tokenyard.finetune.states import IllegalTransition, JobState, Outcome, check_transition, outward


@pytest.mark.parametrize(
    ("state", "outcome", "status"),
    [
        (JobState.CREATING, None, "validating_files"),
        (JobState.VALIDATING, None, "validating_files"),
        (JobState.QUEUED, None, "queued"),
        (JobState.RUNNING, None, "running"),
        (JobState.CHECKING, None, "running"),
        (JobState.STOPPING, Outcome.FAILED, "running"),
        (JobState.STOPPING, Outcome.CANCELLED, "cancelled"),
        (JobState.SETTLING, Outcome.SUCCEEDED, "running"),
        (JobState.SETTLING, Outcome.FAILED, "running"),
        (JobState.SETTLING, Outcome.CANCELLED, "cancelled"),
        (JobState.SUCCEEDED, Outcome.SUCCEEDED, "succeeded"),
        (JobState.FAILED, Outcome.FAILED, "failed"),
        (JobState.CANCELLED, Outcome.CANCELLED, "cancelled"),
    ],
)
def test_the_outward_status(state, outcome, status) -> None:
    assert outward(state, outcome) == status


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (JobState.QUEUED, JobState.CHECKING, None),
        (JobState.RUNNING, JobState.SETTLING, Outcome.SUCCEEDED),  # past the gate
        (JobState.CHECKING, JobState.STOPPING, Outcome.SUCCEEDED),
        (JobState.RUNNING, JobState.STOPPING, None),
        (JobState.VALIDATING, JobState.QUEUED, Outcome.FAILED),
        (JobState.SETTLING, JobState.SUCCEEDED, Outcome.CANCELLED),
        (JobState.CHECKING, JobState.SUCCEEDED, Outcome.SUCCEEDED),  # past the usage event
        (JobState.SUCCEEDED, JobState.RUNNING, None),
        (JobState.CANCELLED, JobState.SETTLING, Outcome.CANCELLED),
    ],
)
def test_no_state_is_skipped_or_left_again(before, after, outcome) -> None:
    with pytest.raises(IllegalTransition):
        check_transition(before, after, outcome)
