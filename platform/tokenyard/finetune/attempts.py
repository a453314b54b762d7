"""Runs a job's training in the cluster: submits attempts, follows them, replaces lost ones, stops them."""

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import new_adapter_id
from tokenyard.core.training import RunState, RunStatus, TrainingResult, TrainingStatus, submission_id
from tokenyard.finetune.attempt_folder import AttemptFolder
from tokenyard.finetune.endings import billable_tokens, fail, wait_for
from tokenyard.finetune.jobs import Job, JobError
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.policy import TrainingPolicy, attempt_deadline_ms
from tokenyard.finetune.ports import BaseModels, TrainingRuns
from tokenyard.finetune.progress import JobChanged, Note
from tokenyard.finetune.states import JobState, Outcome

_CLUSTER_AWAY = "the training cluster, which does not answer"
_NO_ROOM = "room in the training cluster"


class Attempts:
    """`running` -> `checking`, or failed; `stopping` -> `settling`."""

    def __init__(
        self,
        *,
        store: JobOperatorStore,
        folder: AttemptFolder,
        runs: TrainingRuns,
        models: BaseModels,
        policy: TrainingPolicy,
        clock: Clock,
    ) -> None:
        self._store = store
        self._folder = folder
        self._runs = runs
        self._models = models
        self._policy = policy
        self._clock = clock

    async def advance(self, job: Job) -> Job:
        """Look after a running job once.

        Raises:
            JobChanged: somebody else changed the job.
        """
        result = await self._folder.result(job)  # before the events: it is written after the last of them
        job = await self._take_events(job)
        if result is not None:
            return await self._ended(job, result)
        if job.deadline_ms is not None and self._now_ms() > job.deadline_ms:
            return await self._fail(job, "training_timeout", "Training took longer than is allowed.")
        try:
            status = await self._runs.status(submission_id(job.id, job.attempt))
            if not job.submitted:
                return await self._submit(job, status)
        except Unavailable:
            return await wait_for(self._store, job, _CLUSTER_AWAY)
        if status is not None and status.state.is_active:
            return await wait_for(self._store, job, _NO_ROOM if status.state is RunState.PENDING else None)
        return await self._gone(job, status)

    async def stop(self, job: Job) -> Job:
        """Go on stopping a job whose end is decided; once nothing runs, it can be settled.

        Raises:
            JobChanged: somebody else changed the job.
        """
        if job.attempt > 0:
            submission = submission_id(job.id, job.attempt)
            try:
                status = await self._runs.status(submission)
                if status is not None and status.state.is_active:
                    await self._runs.stop(submission)
                    return job
            except Unavailable:
                return await wait_for(self._store, job, _CLUSTER_AWAY)
            job = await self._take_events(job)
        after = msgspec.structs.replace(job, state=JobState.SETTLING, waits_for=None)
        result = await self._folder.result(job) if job.attempt > 0 else None
        if job.outcome is Outcome.CANCELLED:
            after = msgspec.structs.replace(after, trained_tokens=billable_tokens(job, result))
        return await self._store.save(job, after, checkpoints=result.checkpoints if result else ())

    async def _submit(self, job: Job, status: RunStatus | None) -> Job:
        submission = submission_id(job.id, job.attempt)
        if status is None:
            if await self._folder.has_started(job):  # it was submitted, which was not noted, and then lost
                return await self._again(job, "Training was lost")
            model = self._models.get(job.model)
            if model is None:
                return await self._fail(job, "model_not_found", f"The model {job.model} is not served any more.")
            entrypoint = await self._folder.write_spec(job, model, self._policy.resources)
            metadata = {"job": job.id, "organization": job.organization, "attempt": str(job.attempt)}
            await self._runs.submit(submission, entrypoint, env={}, metadata=metadata)
        try:
            return await self._store.save(job, msgspec.structs.replace(job, submitted=True))
        except JobChanged:
            await self._stop_if_unwanted(job, submission)
            raise

    async def _stop_if_unwanted(self, job: Job, submission: str) -> None:
        """End what was just started where the job has moved on: nobody would look after it."""
        now = await self._store.get(job.id)
        if now is None or now.state is not JobState.RUNNING or now.attempt != job.attempt:
            await self._runs.stop(submission)

    async def _take_events(self, job: Job) -> Job:
        events = await self._folder.events(job)
        if not events:
            return job
        notes = [
            Note(
                message=event.message,
                level=event.level,
                type=event.type,
                data=event.data,
                source=f"{job.attempt}:{event.seq}",
                created_at=event.created_at,
            )
            for event in events
        ]
        return await self._store.save(job, msgspec.structs.replace(job, events_taken=events[-1].seq), notes=notes)

    async def _ended(self, job: Job, result: TrainingResult) -> Job:
        if result.status is TrainingStatus.SUCCEEDED:
            return await self._trained(job, result)
        if result.status is TrainingStatus.CANCELLED:
            return await self._fail(job, "training_stopped", "Training was stopped by the operator.")
        error = result.error
        if error is None or error.retryable:
            return await self._again(job, "Training broke off")
        return await self._fail(job, error.code, error.message)

    async def _trained(self, job: Job, result: TrainingResult) -> Job:
        after = msgspec.structs.replace(
            job,
            state=JobState.CHECKING,
            adapter=new_adapter_id(),
            digest=result.digest,
            trained_tokens=billable_tokens(job, result),
            waits_for=None,
            deadline_ms=self._now_ms() + int(self._policy.checking_timeout_s * 1000),
        )
        notes = [Note(message=f"Trained on {after.trained_tokens} tokens; checking the model", source="trained")]
        valid, base = result.metrics.get("valid_loss"), result.metrics.get("base_valid_loss")
        if valid is not None and base is not None and valid >= base:
            message = f"The loss on the validation file ({valid:.4f}) is no better than the base model's ({base:.4f})"
            notes.append(Note(message=message, level="warn", source="no-better"))
        return await self._store.save(job, after, notes=notes, checkpoints=result.checkpoints)

    async def _gone(self, job: Job, status: RunStatus | None) -> Job:
        result = await self._folder.result(job)
        if result is not None:  # it was written after we looked the first time
            return await self._ended(await self._take_events(job), result)
        if status is not None and status.state is RunState.STOPPED:
            return await self._fail(job, "training_stopped", "Training was stopped by the operator.")
        return await self._again(job, "Training was lost")

    async def _again(self, job: Job, what: str) -> Job:
        if job.attempt >= self._policy.max_attempts:
            return await self._fail(job, "training_failed", f"{what} {job.attempt} times; the last attempt is over.")
        submission = submission_id(job.id, job.attempt)
        try:
            status = await self._runs.status(submission)
            if status is not None and status.state.is_active:  # it said that it failed, but has not ended yet
                await self._runs.stop(submission)
                return job
        except Unavailable:
            return await wait_for(self._store, job, _CLUSTER_AWAY)
        resume_url = await self._folder.last_with_checkpoint(job)
        after = msgspec.structs.replace(
            job,
            attempt=job.attempt + 1,
            submitted=False,
            events_taken=0,
            resume_url=resume_url,
            waits_for=None,
            deadline_ms=attempt_deadline_ms(self._policy, self._now_ms()),
        )
        start = "its last checkpoint" if resume_url else "the beginning"
        message = f"{what}; starting attempt {after.attempt} from {start}"
        return await self._store.save(job, after, notes=(Note(message=message, level="warn"),))

    async def _fail(self, job: Job, code: str, message: str) -> Job:
        return await fail(self._store, job, JobError(code, message))

    def _now_ms(self) -> int:
        return self._clock.now_ms()
