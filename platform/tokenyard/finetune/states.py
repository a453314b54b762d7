"""The state machine of a fine-tuning job: pure, and the only place that says what may follow what."""

from enum import StrEnum
from typing import Literal, cast

JobStatus = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
"""OpenAI's words, and `paused`, for which the enumeration of its schema has none."""


class JobState(StrEnum):
    """Where a job is, as we see it; `outward` gives the status that OpenAI's API has for it."""

    CREATING = "creating"  # its cost is being reserved; not visible yet
    VALIDATING = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"  # training was asked to end at its next step
    RESUMING = "resuming"  # resumed before it had paused; it goes into the queue where others pause
    PAUSED = "paused"  # nothing runs; it goes on when it is resumed
    COMPARING = "comparing"  # trained as one trial of a sweep; the best of them is published once all are trained
    CHECKING = "checking"  # trained or taken in; the adapter is published and proven on a replica
    STOPPING = "stopping"  # the outcome is decided, but training may still run
    SETTLING = "settling"  # nothing runs any more; the usage event is not acknowledged yet
    EVALUATING = "evaluating"  # it has succeeded, as everybody sees; answers of its model are still compared
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobOutcome(StrEnum):
    """The end a job is heading for. Once decided it never changes."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class IllegalTransition(RuntimeError):
    """A bug: the machine was asked for a step it does not have."""


_AFTER_TRAINING = (JobState.COMPARING, JobState.CHECKING, JobState.STOPPING, JobState.SETTLING)
_NEXT: dict[JobState, frozenset[JobState]] = {
    JobState.CREATING: frozenset((JobState.VALIDATING, JobState.SETTLING)),
    JobState.VALIDATING: frozenset(
        (JobState.QUEUED, JobState.PAUSED, JobState.CHECKING, JobState.STOPPING, JobState.SETTLING)
    ),
    JobState.QUEUED: frozenset((JobState.RUNNING, JobState.PAUSED, JobState.STOPPING, JobState.SETTLING)),
    JobState.RUNNING: frozenset((JobState.PAUSING, *_AFTER_TRAINING)),
    JobState.PAUSING: frozenset((JobState.RESUMING, JobState.PAUSED, *_AFTER_TRAINING)),
    JobState.RESUMING: frozenset((JobState.PAUSING, JobState.QUEUED, *_AFTER_TRAINING)),
    JobState.PAUSED: frozenset((JobState.VALIDATING, JobState.QUEUED, JobState.STOPPING)),
    JobState.COMPARING: frozenset((JobState.CHECKING, JobState.STOPPING, JobState.SETTLING)),
    JobState.CHECKING: frozenset((JobState.STOPPING, JobState.SETTLING)),
    JobState.STOPPING: frozenset((JobState.SETTLING,)),
    JobState.SETTLING: frozenset((JobState.EVALUATING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)),
    JobState.EVALUATING: frozenset((JobState.SUCCEEDED,)),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
_OUTWARD_RUNNING = frozenset(
    (
        *(JobState.RUNNING, JobState.PAUSING, JobState.RESUMING, JobState.COMPARING),
        *(JobState.CHECKING, JobState.STOPPING, JobState.SETTLING),
    )
)

FINISHED = frozenset((JobState.EVALUATING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED))
UNFINISHED = frozenset(JobState) - FINISHED
CANCELLABLE = frozenset(
    (
        *(JobState.VALIDATING, JobState.QUEUED, JobState.RUNNING),
        *(JobState.PAUSING, JobState.RESUMING, JobState.PAUSED, JobState.COMPARING, JobState.CHECKING),
    )
)
TRAINING = frozenset((JobState.RUNNING, JobState.PAUSING, JobState.RESUMING, JobState.STOPPING))
"""States in which something may run in Ray, so that a slot is held."""
UNTRAINED = frozenset(
    (
        *(JobState.CREATING, JobState.VALIDATING, JobState.QUEUED),
        *(JobState.RUNNING, JobState.PAUSING, JobState.RESUMING, JobState.PAUSED),
    )
)
"""States of a job that may still be trained to its end. What has left them never comes back."""


def check_transition(before: JobState, after: JobState, outcome: JobOutcome | None) -> None:
    """Raise `IllegalTransition` where `after` may not follow `before`, or does not fit the outcome."""
    if after not in _NEXT[before]:
        raise IllegalTransition(f"{before} -> {after}")
    decided = after in (JobState.STOPPING, JobState.SETTLING) or after in FINISHED
    if decided != (outcome is not None):
        raise IllegalTransition(f"{after} with outcome {outcome}")
    ended = JobState.SUCCEEDED if after is JobState.EVALUATING else after
    if after in FINISHED and outcome is not None and ended.value != outcome.value:
        raise IllegalTransition(f"{after} with outcome {outcome}")
    # A trial that was not the best succeeds without a model, so there is none to check.
    passed = before in (JobState.COMPARING, JobState.CHECKING)
    if outcome is JobOutcome.SUCCEEDED and after is JobState.SETTLING and not passed:
        raise IllegalTransition(f"success without the gate, from {before}")
    if outcome is JobOutcome.SUCCEEDED and after is JobState.STOPPING:
        raise IllegalTransition("success does not stop anything")


def outward(state: JobState, outcome: JobOutcome | None) -> JobStatus:
    """Return OpenAI's status.

    A cancelled job says so at once: that its model will never exist is certain from then on. Success and failure are
    said last, when the bill is on its way.
    """
    if outcome is JobOutcome.CANCELLED:
        return "cancelled"
    if state is JobState.CREATING:
        return "validating_files"
    if state is JobState.EVALUATING:
        return "succeeded"
    return "running" if state in _OUTWARD_RUNNING else cast(JobStatus, state.value)
