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
    """Bounds of fine-tuning. `resources.timeout_s` bounds one attempt, waiting for room in the cluster included.

    `validation_timeout_s` bounds one check of a job's files, from when it runs; `max_attempts` is for checks, too.
    """

    max_running: int = 1
    max_running_per_organization: int = 1
    max_unfinished_per_organization: int = 20
    max_attempts: int = 3
    validation_timeout_s: float = 3600.0
    checking_timeout_s: float = 1800.0
    resources: TrainingResources = field(default_factory=TrainingResources)

    def attempt_deadline_ms(self, now_ms: int) -> int:
        """Return when an attempt that starts now must have ended."""
        return now_ms + int((self.resources.timeout_s + _GRACE_S) * 1000)


def decide(
    policy: TrainingPolicy, training: Sequence[Job], queue: Sequence[Job], now_ms: int
) -> Iterator[tuple[Job, JobProgress]]:
    """Yield each queued job with its progress: first come first served starts, the others say what they wait for.

    `training` are the jobs that hold a slot.
    """
    busy = list(training)
    ahead = 0
    for job in queue:
        free = sorted(set(range(policy.max_running)) - {other.slot for other in busy})
        own = sum(other.organization == job.organization for other in busy)
        if free and own < policy.max_running_per_organization:
            started = _started(job, free[0], policy.attempt_deadline_ms(now_ms))
            busy.append(started.job)
            yield job, started
        else:
            yield job, wait_for(job, _missing(ahead=ahead, busy=len(busy), own_limit=bool(free)))
            ahead += 1


def _started(job: Job, slot: int, deadline_ms: int) -> JobProgress:
    after = msgspec.structs.replace(
        job, state=JobState.RUNNING, slot=slot, attempt=1, waits_for=None, deadline_ms=deadline_ms
    )
    return JobProgress(after, (Note(message="Fine-tuning job started", source="started"),))


def _missing(*, ahead: int, busy: int, own_limit: bool) -> str:
    if own_limit:
        return "another job of your organization to finish training"
    queue = f" and {ahead} in the queue before it" if ahead else ""
    return f"a training slot: {busy} in use{queue}"
