"""The last step of a job: its end and its usage event are saved together, so no job ends without its charge.

Who pays: a job that succeeds pays for every token it trained on, also where another trial of its sweep is kept in its
place; one that is cancelled, by its tenant or because it was paused for too long, pays for the steps of which a resume
point is left, to the token; one that was trained to its end and is no better than its base pays for every token, too:
its data and settings are the tenant's, and what it measured is left. One that fails and leaves checkpoints that can be
called pays its steps as one that is cancelled. Any other that fails pays nothing, whoever is to blame: neither a fault
of the platform nor a model that the gate refuses is worth anything to anybody.
"""

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import AdapterLives
from tokenyard.finetune.progress import JobProgress, Note
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.metering.events import TrainingFinished


class JobSettlement:
    """`settling` -> the end, or `evaluating` after it."""

    def __init__(self, *, adapters: AdapterLives, clock: Clock, evaluation_timeout_s: float) -> None:
        self._adapters = adapters
        self._evaluation_timeout_s = evaluation_timeout_s
        self._clock = clock

    async def advance(self, job: Job) -> JobProgress:
        """End the job, with the usage event that also releases what was reserved."""
        assert job.outcome is not None, "a job is settled only after its outcome is decided"
        if job.adapter is not None and job.outcome is not JobOutcome.SUCCEEDED:
            await self._adapters.fail(job.organization, job.adapter, f"the job {job.id} {job.outcome}")
        now_ms, evaluates = self._clock.now_ms(), job.evaluation is not None and job.published_model is not None
        after = msgspec.structs.replace(
            job,
            state=JobState.EVALUATING if evaluates else JobState(job.outcome.value),
            deadline_ms=now_ms + int(self._evaluation_timeout_s * 1000) if evaluates else job.deadline_ms,
            finished_at=job.finished_at or now_ms // 1000,
            trained_tokens=job.trained_tokens or 0,
        )
        return JobProgress(after, _final_notes(after), usage=_event_of(job))


def _event_of(job: Job) -> TrainingFinished:
    return TrainingFinished(
        organization=job.organization,
        project=job.project,
        key=job.key,
        job=job.id,
        model=str(job.published_model or job.model),
        base_model=job.model,
        price=job.price,
        trained_tokens=job.trained_tokens or 0,
        admitted_at_ms=job.admitted_at_ms,
    )


def _final_notes(job: Job) -> tuple[Note, ...]:
    if job.outcome is JobOutcome.SUCCEEDED:
        ended = Note(message="The job has successfully completed", source="end")
        if job.published_model is None:
            return (ended,)
        return Note(message=f"New fine-tuned model created: {job.published_model}", source="model"), ended
    if job.outcome is JobOutcome.FAILED and job.error is not None:
        charged = f" Its checkpoints stay, so {job.trained_tokens} trained tokens are charged."
        message = f"The job failed: {job.error.message}" + (charged if job.leaves_checkpoints else "")
        return (Note(message=message, level="error", source="end"),)
    return (Note(message=f"The job has stopped; {job.trained_tokens} trained tokens are charged", source="end"),)
