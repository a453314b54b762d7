"""What a job would take: known before it is created, from its files and from jobs that trained before."""

from collections.abc import Awaitable, Callable, Sequence
from statistics import median

import msgspec

from tokenyard.core.money import NanoDollars, Price
from tokenyard.core.training import TrainingResources
from tokenyard.finetune.job import Job


class PastTraining(msgspec.Struct, frozen=True):
    """Medians over jobs that succeeded: trained tokens a second, and how many there were of each token of the bound."""

    tokens_per_s: float
    tokens_of_bound: float


Past = Callable[[str, str, str], Awaitable[PastTraining | None]]
"""Returns what is known of a model, a method and a kind of machine."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """`job` is the one that would be created, with what would be reserved; None is not known.

    `questions` is how often its grader may ask a model, which is no part of its cost.
    """

    job: Job
    price: Price
    steps: int
    questions: int = 0
    expected_tokens: int | None = None
    expected_cost: NanoDollars | None = None
    seconds: float | None = None


def machine_kind(resources: TrainingResources) -> str:
    """Return what jobs ask of the cluster, so that only what trained on the same is compared."""
    return f"{resources.num_workers}x{resources.cpus:g}cpu+{resources.gpus:g}gpu"


def past_training(jobs: Sequence[Job]) -> PastTraining | None:
    """Return what jobs that succeeded tell together; None where none of them made two steps apart in time."""
    speeds, parts = [], []
    for job in jobs:
        steps, tokens = job.steps, job.trained_tokens
        if steps is None or not tokens or steps.last_at <= steps.first_at or steps.last <= steps.first:
            continue
        share = (steps.last - steps.first) / max(1, steps.total)
        speeds.append(tokens * share / (steps.last_at - steps.first_at))
        parts.append(tokens / max(1, job.bound_tokens or job.reserved_tokens))
    return PastTraining(median(speeds), median(parts)) if speeds else None


def finish_of(job: Job) -> int | None:
    """Return when a job that trains will have made its last step at the speed so far, in unix seconds."""
    steps = job.steps
    if job.status != "running" or job.slot is None or steps is None or steps.last <= steps.first:
        return None
    return steps.last_at + (steps.total - steps.last) * (steps.last_at - steps.first_at) // (steps.last - steps.first)
