"""Pausing and resuming a job, as its tenant or the operator asks for it."""

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.finetune.job import Job
from tokenyard.finetune.progress import JobProgress, Note, paused
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobState
from tokenyard.finetune.store import JobStore

_GOING_ON = (JobState.VALIDATING, JobState.QUEUED, JobState.RUNNING, JobState.RESUMING)


class JobPausing:
    """Both methods may be called again, and raise `NotFound` for a job that is not the organization's."""

    def __init__(self, jobs: JobStore, policy: TrainingPolicy, clock: Clock) -> None:
        self._jobs = jobs
        self._policy = policy
        self._clock = clock

    async def pause(self, organization: OrganizationId, job: JobId) -> Job:
        """Ask a job to rest: at once where nothing runs, else with its next step. What it reserved stays reserved.

        Raises:
            InvalidRequest: it has ended, or is trained already.
        """
        return await self._jobs.change(organization, job, self._to_pause)

    async def resume(self, organization: OrganizationId, job: JobId) -> Job:
        """Put a paused job into the queue: it goes on from the step that it came to.

        Raises:
            InvalidRequest: it is not paused.
        """
        return await self._jobs.change(organization, job, self._to_resume)

    def _to_pause(self, job: Job) -> JobProgress:
        if job.outcome is None and job.state in (JobState.PAUSING, JobState.PAUSED):
            return JobProgress(job)
        if job.state in (JobState.VALIDATING, JobState.QUEUED):
            return paused(job, self._policy.paused_deadline_ms(self._clock.now_ms()))
        if job.state not in (JobState.RUNNING, JobState.RESUMING):
            message = f"The job {job.id} has already ended, or is trained to its end."
            raise InvalidRequest(message, code="job_not_pausable")
        # How long its run has left counts from when a worker asks it.
        deadline_ms = job.deadline_ms if job.state is JobState.RESUMING else None
        after = msgspec.structs.replace(job, state=JobState.PAUSING, deadline_ms=deadline_ms, waits_for=None)
        return JobProgress(after, (Note(message="Pausing: training ends with its next step"),))

    def _to_resume(self, job: Job) -> JobProgress:
        if job.outcome is None and job.state in _GOING_ON:
            return JobProgress(job)
        note = Note(message="The job was resumed")
        if job.state is JobState.PAUSING:
            return JobProgress(msgspec.structs.replace(job, state=JobState.RESUMING), (note,))
        if job.state is not JobState.PAUSED:
            raise InvalidRequest(f"The job {job.id} is not paused.", code="job_not_paused")
        if job.attempt > 0:
            return JobProgress(msgspec.structs.replace(job, state=JobState.QUEUED, deadline_ms=None), (note,))
        # Its files may not have been read yet.
        deadline_ms = self._clock.now_ms() + int(self._policy.validation_timeout_s * 1000)
        return JobProgress(msgspec.structs.replace(job, state=JobState.VALIDATING, deadline_ms=deadline_ms), (note,))
