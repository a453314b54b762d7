"""Which jobs train: the bounds of an installation, and who is next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from tokenyard.core.training import TrainingResources
from tokenyard.finetune.job import Job
from tokenyard.finetune.progress import JobProgress, Note, wait_for
from tokenyard.finetune.states import JobState

# An attempt ends itself at its timeout and says so; only one that does not is ended from outside, this much later.
_GRACE_S = 60.0


@dataclass(frozen=True)
class TrainingPolicy:
    """Bounds of fine-tuning. `resources.timeout_s` bounds one attempt, from when its workers have room.

    A run that does not end within `pausing_timeout_s` of being asked to pause is stopped; a job that is paused longer
    than `paused_limit_s` is cancelled.
    """

    max_running: int = 1
    max_running_per_organization: int = 1
    max_unfinished_per_organization: int = 20
    max_attempts: int = 3
    validation_timeout_s: float = 3600.0
    checking_timeout_s: float = 1800.0
    pausing_timeout_s: float = 120.0
    paused_limit_s: float = 7 * 86_400.0
    resources: TrainingResources = field(default_factory=TrainingResources)

    def paused_deadline_ms(self, now_ms: int) -> int:
        """Return when a job that is paused now is cancelled."""
        return now_ms + int(self.paused_limit_s * 1000)

    def attempt_deadline_ms(self, now_ms: int) -> int:
        """Return when an attempt whose workers have room since now must have ended."""
        return now_ms + int((self.resources.timeout_s + _GRACE_S) * 1000)


def decide(policy: TrainingPolicy, training: Sequence[Job], queue: Sequence[Job]) -> Iterator[tuple[Job, JobProgress]]:
    """Yield each queued job with its progress: first come first served starts, the others say what they wait for.

    `training` are the jobs that hold a slot.
    """
    busy = list(training)
    ahead = 0
    for job in queue:
        free = sorted(set(range(policy.max_running)) - {other.slot for other in busy})
        own = sum(other.organization == job.organization for other in busy)
        if free and own < policy.max_running_per_organization:
            started = _started(job, free[0])
            busy.append(started.job)
            yield job, started
        else:
            yield job, wait_for(job, _missing(ahead=ahead, busy=len(busy), own_limit=bool(free)))
            ahead += 1


def _started(job: Job, slot: int) -> JobProgress:
    after = msgspec.structs.replace(
        job, state=JobState.RUNNING, slot=slot, attempt=job.attempt + 1, waits_for=None, deadline_ms=None
    )
    message = "Fine-tuning job started" if after.attempt == 1 else "Fine-tuning job goes on"
    return JobProgress(after, (Note(message=message, source=f"started {after.attempt}"),))


def _missing(*, ahead: int, busy: int, own_limit: bool) -> str:
    if own_limit:
        return "another job of your organization to finish training"
    queue = f" and {ahead} in the queue before it" if ahead else ""
    return f"a training slot: {busy} in use{queue}"
