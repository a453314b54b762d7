"""Runs a job's training in the cluster: submits attempts, follows them, replaces lost ones, stops them."""

from collections.abc import Sequence
from functools import partial

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import new_adapter_id
from tokenyard.core.training import RunState, RunStatus, TrainingEvent, TrainingResult, TrainingStatus, submission_id
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.ports import TrainableModels, TrainingRuns
from tokenyard.finetune.progress import JobProgress, Note, fail, wait_for
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.finetune.steps.attempt_files import AttemptFiles
from tokenyard.finetune.steps.step_progress import steps_after

_CLUSTER_AWAY = "the training cluster, which does not answer"
_NO_ROOM = "room in the training cluster"
_LOST = "Training was lost"
_STOPPED = JobError("training_stopped", "Training was stopped by the operator.")
_TIMED_OUT = JobError("training_timeout", "Training took longer than is allowed.")


class Attempts:
    """`running` -> `checking`, or failed; `stopping` -> `settling`."""

    def __init__(
        self, *, files: AttemptFiles, runs: TrainingRuns, models: TrainableModels, policy: TrainingPolicy, clock: Clock
    ) -> None:
        self._files = files
        self._runs = runs
        self._models = models
        self._policy = policy
        self._clock = clock

    async def advance(self, job: Job) -> JobProgress:
        result = await self._files.result(job)  # before the events: it is written after the last of them
        seen = _with_events(job, await self._files.events(job))
        try:
            step = await (self._follow(seen.job) if result is None else self._ended(seen.job, result))
        except Unavailable:
            step = wait_for(seen.job, _CLUSTER_AWAY)
        return seen.then(step)

    async def stop(self, job: Job) -> JobProgress:
        """Go on stopping a job whose end is decided; once nothing runs, it can be settled."""
        seen, result = JobProgress(job), None
        if job.attempt > 0:
            try:
                if await self._stop_run(job):
                    return seen
            except Unavailable:
                return wait_for(job, _CLUSTER_AWAY)
            result = await self._files.result(job)
            seen = _with_events(job, await self._files.events(job))
        after = msgspec.structs.replace(seen.job, state=JobState.SETTLING, waits_for=None)
        if job.outcome is JobOutcome.CANCELLED:
            after = msgspec.structs.replace(after, trained_tokens=_billable_tokens(job, result))
        return seen.then(JobProgress(after, checkpoints=result.checkpoints if result is not None else ()))

    async def _follow(self, job: Job) -> JobProgress:
        """Look at a run that has not said how it ended."""
        if self._is_overdue(job):
            return fail(job, _TIMED_OUT)
        status = await self._runs.status(submission_id(job.id, job.attempt))
        if not job.submitted:
            return await self._submit(job, status)
        if status is not None and status.state.is_active:
            return wait_for(job, _NO_ROOM if status.state is RunState.PENDING else None)
        if await self._files.result(job) is not None:  # written since we looked for it: the next look takes it
            return JobProgress(job)
        if status is not None and status.state is RunState.STOPPED:
            return fail(job, _STOPPED)
        return await self._try_again(job, _LOST)

    async def _submit(self, job: Job, status: RunStatus | None) -> JobProgress:
        submission = submission_id(job.id, job.attempt)
        if status is None:
            if await self._files.has_started(job):  # it was submitted, which was not noted, and then lost
                return await self._try_again(job, _LOST)
            model = self._models.get(job.model)
            if model is None:
                return fail(job, JobError("model_not_found", f"The model {job.model} is not served any more."))
            entrypoint = await self._files.write_spec(job, model, self._models.rules(model.id), self._policy.resources)
            metadata = {"job": job.id, "organization": job.organization, "attempt": str(job.attempt)}
            await self._runs.submit(submission, entrypoint, metadata=metadata)
        return JobProgress(msgspec.structs.replace(job, submitted=True), undo=partial(self._stop_if_unwanted, job))

    async def _stop_if_unwanted(self, job: Job, now: Job | None) -> None:
        """End what was just started where the job has moved on: nothing would look after it."""
        if now is None or now.state is not JobState.RUNNING or now.attempt != job.attempt:
            await self._runs.stop(submission_id(job.id, job.attempt))

    async def _ended(self, job: Job, result: TrainingResult) -> JobProgress:
        if result.status is TrainingStatus.SUCCEEDED:
            return self._trained(job, result)
        if result.status is TrainingStatus.CANCELLED:
            return await self._signalled(job)
        if result.error is None or result.error.retryable:
            return await self._try_again(job, "Training broke off")
        return fail(job, JobError(result.error.code, result.error.message))

    async def _signalled(self, job: Job) -> JobProgress:
        """Find out who ended an attempt that we still want. Ray calls only those stopped that somebody stopped by it;
        a node that goes away sends the same signal, and its attempts are lost.
        """
        status = await self._runs.status(submission_id(job.id, job.attempt))
        if status is not None and status.state is RunState.STOPPED:
            return fail(job, _STOPPED)
        if status is None or not status.state.is_active:
            return await self._try_again(job, _LOST)
        return fail(job, _TIMED_OUT) if self._is_overdue(job) else JobProgress(job)

    def _is_overdue(self, job: Job) -> bool:
        return job.deadline_ms is not None and self._clock.now_ms() > job.deadline_ms

    def _trained(self, job: Job, result: TrainingResult) -> JobProgress:
        after = msgspec.structs.replace(
            job,
            state=JobState.CHECKING,
            adapter=new_adapter_id(),
            digest=result.digest,
            trained_tokens=_billable_tokens(job, result),
            waits_for=None,
            deadline_ms=self._clock.now_ms() + int(self._policy.checking_timeout_s * 1000),
        )
        note = Note(message=f"Trained on {after.trained_tokens} tokens; checking the model", source="trained")
        return JobProgress(after, (note,), result.checkpoints)

    async def _try_again(self, job: Job, what: str) -> JobProgress:
        if job.attempt >= self._policy.max_attempts:
            message = f"{what} {job.attempt} times; the last attempt is over."
            return fail(job, JobError("training_failed", message))
        if await self._stop_run(job):  # it said that it failed, but has not ended yet
            return JobProgress(job)
        resume_url = await self._files.last_with_checkpoint(job)
        after = msgspec.structs.replace(
            job,
            attempt=job.attempt + 1,
            submitted=False,
            events_taken=0,
            resume_url=resume_url,
            waits_for=None,
            deadline_ms=self._policy.attempt_deadline_ms(self._clock.now_ms()),
        )
        start = "its last checkpoint" if resume_url else "the beginning"
        message = f"{what}; starting attempt {after.attempt} from {start}"
        return JobProgress(after, (Note(message=message, level="warn"),))

    async def _stop_run(self, job: Job) -> bool:
        """Ask the attempt's run to stop; tell whether there was one."""
        submission = submission_id(job.id, job.attempt)
        status = await self._runs.status(submission)
        active = status is not None and status.state.is_active
        if active:
            await self._runs.stop(submission)
        return active


def _with_events(job: Job, events: Sequence[TrainingEvent]) -> JobProgress:
    notes = tuple(
        Note(
            message=event.message,
            level=event.level,
            type=event.type,
            data=event.data,
            source=f"{job.attempt}:{event.seq}",
            created_at=event.created_at,
        )
        for event in events
    )
    if not events:
        return JobProgress(job)
    after = msgspec.structs.replace(job, events_taken=events[-1].seq, steps=steps_after(job.steps, events))
    return JobProgress(after, notes)


def _billable_tokens(job: Job, result: TrainingResult | None) -> int:
    """Return what a job trained on, never more than was reserved for it."""
    return min(result.trained_tokens, job.reserved_tokens) if result is not None else 0
