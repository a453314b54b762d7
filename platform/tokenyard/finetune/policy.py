"""How much training an installation does at once, and how long it waits."""

from dataclasses import dataclass, field

from tokenyard.core.training import TrainingResources


@dataclass(frozen=True)
class TrainingPolicy:
    """Bounds of fine-tuning. `resources.timeout_s` bounds one attempt, waiting for room in the cluster included."""

    max_running: int = 1
    max_running_per_organization: int = 1
    max_unfinished_per_organization: int = 20
    max_attempts: int = 3
    validation_timeout_s: float = 3600.0
    checking_timeout_s: float = 1800.0
    resources: TrainingResources = field(default_factory=TrainingResources)


# An attempt ends itself at its timeout and says so; only one that does not is ended from outside, this much later.
_GRACE_S = 60.0


def attempt_deadline_ms(policy: TrainingPolicy, now_ms: int) -> int:
    """Return when an attempt that starts now must have ended."""
    return now_ms + int((policy.resources.timeout_s + _GRACE_S) * 1000)
