"""Where trained trials of a sweep wait for each other: the best goes on to be published, the others end."""

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.finetune.job import Job
from tokenyard.finetune.progress import JobProgress, Note
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.finetune.sweeps.operator_store import SweepOperatorStore
from tokenyard.finetune.sweeps.sweep import Sweep


class Comparing:
    """`comparing` -> `checking` for the best; `settling` for the others, once its model is live."""

    def __init__(self, sweeps: SweepOperatorStore, policy: TrainingPolicy, clock: Clock) -> None:
        self._sweeps = sweeps
        self._policy = policy
        self._clock = clock

    async def advance(self, job: Job) -> JobProgress:
        assert job.sweep is not None, "only trials wait for others"
        sweep = await self._sweeps.get(job.sweep)
        if sweep.kept is not None:
            return _not_kept(job, sweep.kept)
        best = sweep.next_checked
        return JobProgress(job) if best is None or best.id != job.id else self._checked(job, sweep)

    def _checked(self, job: Job, sweep: Sweep) -> JobProgress:
        deadline_ms = self._clock.now_ms() + int(self._policy.checking_timeout_s * 1000)
        after = msgspec.structs.replace(job, state=JobState.CHECKING, deadline_ms=deadline_ms)
        message = f"Of the trials of {sweep.id} that may be kept, this one is the best; checking the model"
        return JobProgress(after, (Note(message=message, source="best trial"),))


def _not_kept(job: Job, better: Job) -> JobProgress:
    after = msgspec.structs.replace(
        job, state=JobState.SETTLING, outcome=JobOutcome.SUCCEEDED, better_trial=better.id, waits_for=None
    )
    losses = f": {better.held_out} there, {job.held_out} here (tuned model against base)" if job.held_out else ""
    message = f"The trial {better.id} of the sweep is kept in place of this one, which leaves no model{losses}"
    data = {"better_trial": better.id, "held_out": msgspec.to_builtins([better.held_out, job.held_out])}
    return JobProgress(after, (Note(message=message, data=data, source="not kept"),))
