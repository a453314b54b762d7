"""Runs a job's training in the cluster: submits attempts, follows, pauses and stops them, replaces lost ones."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import new_adapter_id
from tokenyard.core.training import (
    INTERRUPTED,
    RunState,
    RunStatus,
    TrainingCheckpoint,
    TrainingError,
    TrainingEvent,
    TrainingResult,
    TrainingStatus,
    submission_id,
)
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.ports import TrainableModels, TrainingRuns
from tokenyard.finetune.progress import JobProgress, Note, cancelled, fail, paused, wait_for
from tokenyard.finetune.results.held_out import held_out
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.finetune.steps.attempt_files import MAX_EVENTS_AT_ONCE, AttemptFiles
from tokenyard.finetune.steps.runs import CLUSTER_AWAY, NO_ROOM, stop_run
from tokenyard.finetune.steps.step_progress import steps_after

_LOST = "Training was lost"
_STOPPED = JobError("training_stopped", "Training was stopped by the operator.")
_TIMED_OUT = JobError("training_timeout", "Training took longer than is allowed.")


class Attempts:
    """`running` -> `checking`, or `comparing` in a sweep, or failed; `pausing` -> `paused`; `resuming` -> `queued`;
    `stopping` -> `settling`.
    """

    def __init__(
        self, *, files: AttemptFiles, runs: TrainingRuns, models: TrainableModels, policy: TrainingPolicy, clock: Clock
    ) -> None:
        self._files = files
        self._runs = runs
        self._models = models
        self._policy = policy
        self._clock = clock

    async def advance(self, job: Job) -> JobProgress:
        return await self._seen(job, lambda seen, result: self._ended(seen, result) if result else self._follow(seen))

    async def pause(self, job: Job) -> JobProgress:
        """Go on ending a run that is to go on later; one that was trained to its end meanwhile is not held up."""
        return await self._seen(job, self._pausing)

    async def give_up_paused(self, job: Job) -> JobProgress:
        """End a job that was paused for longer than it may be."""
        if not self._is_overdue(job):
            return JobProgress(job)
        days = f"{self._policy.paused_limit_s / 86_400:g}"
        return cancelled(job, self._clock.now_ms() // 1000, f": it was paused for more than {days} days")

    async def stop(self, job: Job) -> JobProgress:
        """Go on stopping a job whose end is decided; once nothing runs, it can be settled."""
        if job.attempt == 0:
            return JobProgress(_settling(job))
        return await self._seen(job, self._stopping)

    async def _seen(
        self, job: Job, then: Callable[[Job, TrainingResult | None], Awaitable[JobProgress]]
    ) -> JobProgress:
        """Take in what the attempt has told, then what follows from how it ended, if it has."""
        result = await self._files.result(job)  # before the events: it is written after the last of them
        events = await self._files.events(job)
        seen = _with_events(job, events)
        if len(events) == MAX_EVENTS_AT_ONCE:  # there may be more, which would be lost with the attempt
            return seen
        try:
            step = await then(seen.job, result)
        except Unavailable:
            step = wait_for(seen.job, CLUSTER_AWAY)
        return seen.then(step)

    async def _follow(self, job: Job) -> JobProgress:
        """Look at a run that has not said how it ended."""
        if self._is_overdue(job):
            return fail(job, _TIMED_OUT)
        status = await self._runs.status(submission_id(job.id, job.attempt))
        if not job.submitted:
            return await self._submit(job, status)
        if status is not None and status.state.is_active:
            return await self._under_way(job, status)
        if not await self._is_told(job, None):
            return JobProgress(job)
        if status is not None and status.state is RunState.STOPPED:
            return fail(job, _STOPPED)
        return await self._try_again(job, _LOST)

    async def _under_way(self, job: Job, status: RunStatus) -> JobProgress:
        if status.state is RunState.PENDING:
            return wait_for(job, NO_ROOM)
        has_room = job.deadline_ms is not None or await self._files.has_begun(job)
        return wait_for(self._timed(job) if has_room else job, None)

    def _timed(self, job: Job) -> Job:
        """Let the attempt's time run from now on, if it does not run yet."""
        if job.deadline_ms is not None:
            return job
        return msgspec.structs.replace(job, deadline_ms=self._policy.attempt_deadline_ms(self._clock.now_ms()))

    async def _pausing(self, job: Job, result: TrainingResult | None) -> JobProgress:
        if result is not None and (decided := self._decided(job, result)) is not None:
            return decided
        submission = submission_id(job.id, job.attempt)
        status = await self._runs.status(submission)
        if status is None or not status.state.is_active:
            return await self._rest(job) if await self._is_told(job, result) else JobProgress(job)
        if result is not None or self._is_overdue(job) or not await self._files.has_begun(job):
            await self._runs.stop(submission)  # nothing is lost, or it had its time
            return JobProgress(job)
        if job.deadline_ms is not None:
            return JobProgress(job)
        await self._files.ask_to_pause(job)
        deadline_ms = self._clock.now_ms() + int(self._policy.pausing_timeout_s * 1000)
        return JobProgress(msgspec.structs.replace(job, deadline_ms=deadline_ms))

    async def _is_told(self, job: Job, result: TrainingResult | None) -> bool:
        """Tell whether a run that is over left no result but `result`: one written since is taken by the next look."""
        return result is not None or await self._files.result(job) is None

    async def _rest(self, job: Job) -> JobProgress:
        newest = await self._files.newest_point(job)
        resting = msgspec.structs.replace(
            job, submitted=False, events_taken=0, resume_url=newest[0] if newest else None, waits_for=None
        )
        if job.state is JobState.RESUMING:
            return JobProgress(msgspec.structs.replace(resting, state=JobState.QUEUED, deadline_ms=None))
        after = f" after step {newest[1].step_number} of {newest[1].total_steps}" if newest else ""
        return paused(resting, self._policy.paused_deadline_ms(self._clock.now_ms()), after)

    async def _stopping(self, job: Job, result: TrainingResult | None) -> JobProgress:
        if await self._stop_run(job) or not await self._is_told(job, result):
            return JobProgress(job)
        checkpoints = result.checkpoints if result is not None else ()
        after = _named(_settling(job), checkpoints)
        if after.outcome is JobOutcome.CANCELLED or after.leaves_checkpoints:
            after = msgspec.structs.replace(after, trained_tokens=await self._trained_tokens(job, result))
        return JobProgress(after, checkpoints=checkpoints)

    async def _trained_tokens(self, job: Job, result: TrainingResult | None) -> int:
        """Return the tokens of all steps of which something is left, never more than was reserved for the job."""
        newest = await self._files.newest_point(job)
        told = result.trained_tokens if result is not None else 0
        return min(max(told, newest[1].trained_tokens if newest else 0), job.reserved_tokens)

    async def _submit(self, job: Job, status: RunStatus | None) -> JobProgress:
        submission = submission_id(job.id, job.attempt)
        if status is None:
            if await self._files.has_started(job):  # it was submitted, which was not noted, and then lost
                return await self._try_again(job, _LOST)
            model = self._models.get(job.model)
            if model is None:
                return fail(job, JobError("model_not_found", f"The model {job.model} is not served any more."))
            await self._files.drop_points(job)
            entrypoint = await self._files.write_spec(job, model, self._models.rules(model.id), self._policy)
            metadata = {"job": job.id, "organization": job.organization, "attempt": str(job.attempt)}
            await self._runs.submit(submission, entrypoint, metadata=metadata)
        return JobProgress(msgspec.structs.replace(job, submitted=True), undo=partial(self._stop_if_unwanted, job))

    async def _stop_if_unwanted(self, job: Job, now: Job | None) -> None:
        """End what was just started where the job has moved on: nothing would look after it."""
        if now is None or now.state is not JobState.RUNNING or now.attempt != job.attempt:
            await self._runs.stop(submission_id(job.id, job.attempt))

    async def _ended(self, job: Job, result: TrainingResult) -> JobProgress:
        decided = self._decided(job, result)
        if decided is not None:
            return decided
        if result.status is TrainingStatus.CANCELLED:
            return await self._signalled(job)
        return await self._try_again(job, "Training broke off", result.error)

    def _decided(self, job: Job, result: TrainingResult) -> JobProgress | None:
        """Return what follows from a result after which nothing is tried again; None for any other."""
        if result.status is TrainingStatus.SUCCEEDED:
            return self._trained(job, result)
        if result.error is not None and not result.error.retryable:
            return fail(job, JobError(result.error.code, result.error.message))
        return None

    async def _signalled(self, job: Job) -> JobProgress:
        """Find out who ended an attempt that we still want. Ray calls only those stopped that somebody stopped by it;
        a node that goes away sends the same signal, and its attempts are lost.
        """
        status = await self._runs.status(submission_id(job.id, job.attempt))
        if status is not None and status.state is RunState.STOPPED:
            return fail(job, _STOPPED)
        if status is None or not status.state.is_active:
            return await self._try_again(job, _LOST)
        return fail(job, _TIMED_OUT) if self._is_overdue(job) else JobProgress(self._timed(job))

    def _is_overdue(self, job: Job) -> bool:
        return job.deadline_ms is not None and self._clock.now_ms() > job.deadline_ms

    def _trained(self, job: Job, result: TrainingResult) -> JobProgress:
        compares = job.sweep is not None
        checked_by_ms = self._clock.now_ms() + int(self._policy.checking_timeout_s * 1000)
        after = msgspec.structs.replace(
            job,
            state=JobState.COMPARING if compares else JobState.CHECKING,
            adapter=job.adapter or new_adapter_id(),
            digest=result.digest,
            trained_tokens=min(result.trained_tokens, job.reserved_tokens),
            held_out=held_out(result.metrics),
            waits_for=None,
            deadline_ms=None if compares else checked_by_ms,
        )
        return JobProgress(after, tuple(_end_notes(after)), result.checkpoints)

    async def _try_again(self, job: Job, what: str, error: TrainingError | None = None) -> JobProgress:
        """Replace an attempt that was lost; `error` is what it could still say."""
        lost = job.lost_attempts + 1
        if lost >= self._policy.max_attempts:
            message = f"{what} {lost} times; the last attempt is over."
            if error is None or error.code == INTERRUPTED:
                return fail(job, JobError("training_failed", message))
            return fail(job, JobError(error.code, f"{message} {error.message}"))
        if await self._stop_run(job):  # it said that it failed, but has not ended yet
            return JobProgress(job)
        newest = await self._files.newest_point(job)
        after = msgspec.structs.replace(
            job,
            attempt=job.attempt + 1,
            lost_attempts=lost,
            submitted=False,
            events_taken=0,
            resume_url=newest[0] if newest else None,
            waits_for=None,
            deadline_ms=None,
        )
        start = f"step {newest[1].step_number} of {newest[1].total_steps}" if newest else "the beginning"
        message = f"{what}; starting attempt {after.attempt} from {start}"
        return JobProgress(after, (Note(message=message, level="warn"),))

    async def _stop_run(self, job: Job) -> bool:
        return await stop_run(self._runs, submission_id(job.id, job.attempt))


def _with_events(job: Job, events: Sequence[TrainingEvent]) -> JobProgress:
    if not events:
        return JobProgress(job)
    checkpoints = tuple(event.checkpoint for event in events if event.checkpoint is not None)
    steps = steps_after(job.steps, events)
    after = msgspec.structs.replace(_named(job, checkpoints), events_taken=events[-1].seq, steps=steps)
    return JobProgress(after, tuple(_note(job, event) for event in events), checkpoints)


def _named(job: Job, checkpoints: Sequence[TrainingCheckpoint]) -> Job:
    """Give the model its name with the first checkpoint, which is listed under it."""
    if job.adapter is not None or not checkpoints:
        return job
    return msgspec.structs.replace(job, adapter=new_adapter_id())


def _end_notes(job: Job) -> Iterator[Note]:
    then = "checking the model" if job.sweep is None else "the best trial of its sweep is kept"
    yield Note(message=f"Trained on {job.trained_tokens} tokens; {then}", source="trained")
    if (found := job.held_out) is not None:
        message = f"On the validation file, tuned model against base: {found}"
        yield Note(message=message, data=msgspec.to_builtins(found), source="held out")


def _note(job: Job, event: TrainingEvent) -> Note:
    source = f"{job.attempt}:{event.seq}"
    if "total_steps" in event.data:  # a step that another attempt does again is told once
        source = f"step:{event.data['step']}"
    return Note(
        message=event.message,
        level=event.level,
        type=event.type,
        data=event.data,
        source=source,
        created_at=event.created_at,
    )


def _settling(job: Job) -> Job:
    return msgspec.structs.replace(job, state=JobState.SETTLING, waits_for=None)
