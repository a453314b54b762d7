"""The first step of a job: before anything is spent on its files, a run in the training cluster checks them whole."""

from collections.abc import Iterator
from functools import partial

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.datasets.checking import CheckLimits, CheckResult, DataReport, check_id
from tokenyard.core.errors import Unavailable
from tokenyard.core.money import NanoDollars
from tokenyard.core.training import RunState
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.ports import TrainableModels, TrainingReservations, TrainingRuns
from tokenyard.finetune.progress import JobProgress, Note, fail, wait_for
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobState
from tokenyard.finetune.steps.check_files import CheckFiles
from tokenyard.finetune.steps.runs import CLUSTER_AWAY, NO_ROOM, stop_run
from tokenyard.finetune.steps.starting import StartLost, copy_start
from tokenyard.finetune.steps.taking_in import TakingIn
from tokenyard.storage.blobs import BlobStore

_GRACE_S = 60.0  # a run ends itself at its limit and says so


class JobValidation:
    """`validating_files` -> `queued`, or failed with the lines that are wrong; who brings an adapter trains nothing."""

    def __init__(
        self,
        *,
        files: CheckFiles,
        blobs: BlobStore,
        runs: TrainingRuns,
        reservations: TrainingReservations,
        models: TrainableModels,
        taking_in: TakingIn,
        policy: TrainingPolicy,
        clock: Clock,
    ) -> None:
        self._files = files
        self._blobs = blobs
        self._runs = runs
        self._reservations = reservations
        self._models = models
        self._taking_in = taking_in
        self._policy = policy
        self._clock = clock

    async def advance(self, job: Job) -> JobProgress:
        if job.takes_in:
            return await self._taking_in.advance(job)
        try:
            return await self._follow(job)
        except Unavailable:
            return _waiting(job, CLUSTER_AWAY)

    async def stop(self, job: Job) -> JobProgress:
        """Go on stopping the check of a job whose end is decided; once nothing runs, it can be settled."""
        try:
            if job.submitted and await self._stop_run(job):
                return JobProgress(job)
        except Unavailable:
            return _waiting(job, CLUSTER_AWAY)
        return JobProgress(msgspec.structs.replace(job, state=JobState.SETTLING, trained_tokens=0, waits_for=None))

    async def _follow(self, job: Job) -> JobProgress:
        result = await self._files.result(job)
        if result is not None:
            return await self._ended(job, result)
        if not job.submitted:
            started = await self._submit(job)
            result = await self._files.result(job)
            return started if result is None else started.then(await self._ended(started.job, result))
        status = await self._runs.status(check_id(job.id, job.check_run))
        if status is not None and status.state is RunState.PENDING:
            return _waiting(job, NO_ROOM)
        if status is not None and status.state is RunState.RUNNING:
            return await self._running(job)
        result = await self._files.result(job)  # written since we looked for it
        return self._try_again(job, "was lost") if result is None else await self._ended(job, result)

    async def _submit(self, job: Job) -> JobProgress:
        model = self._models.get(job.model)
        if model is None:
            return fail(job, JobError("model_not_found", f"The model {job.model} is not served any more."))
        limits = CheckLimits(timeout_s=self._policy.validation_timeout_s)
        entrypoint = await self._files.write_spec(job, model, limits)
        metadata = {"job": job.id, "organization": job.organization, "check": str(job.check_run)}
        await self._runs.submit(check_id(job.id, job.check_run), entrypoint, metadata=metadata)
        after = msgspec.structs.replace(job, submitted=True, deadline_ms=None, waits_for=None)
        return JobProgress(after, undo=partial(self._stop_if_unwanted, job))

    async def _running(self, job: Job) -> JobProgress:
        now_ms = self._clock.now_ms()
        if job.deadline_ms is None:  # only from when it runs
            deadline_ms = now_ms + int((self._policy.validation_timeout_s + _GRACE_S) * 1000)
            return JobProgress(msgspec.structs.replace(job, deadline_ms=deadline_ms, waits_for=None))
        if now_ms > job.deadline_ms:
            await self._stop_run(job)
            return self._try_again(job, "took too long")
        return wait_for(job, None)

    async def _ended(self, job: Job, result: CheckResult) -> JobProgress:
        error = result.error
        if error is not None and not error.retryable:
            return fail(job, JobError(error.code, error.message, error.param))
        if error is not None:
            return self._try_again(job, "broke off", JobError(error.code, error.message))
        if result.report is None:
            return self._try_again(job, "broke off")
        if job.starts_from is not None:
            try:
                await copy_start(self._blobs, job, job.starts_from)
            except StartLost as lost:
                return fail(job, JobError("model_not_found", str(lost), "model"))
        await self._files.keep(job, result.report)
        exact = await self._reserve_exactly(job, result.report)
        after = msgspec.structs.replace(exact, state=JobState.QUEUED, submitted=False, deadline_ms=None, waits_for=None)
        queued = Note(message="Files validated, moving job to queued state", source="validated")
        return JobProgress(after, (*_notes(result.report), queued))

    async def _reserve_exactly(self, job: Job, report: DataReport) -> Job:
        """Give back what the bound of the upload set aside too much: now the tokens are counted."""
        assert job.hyperparameters is not None, "only what trains is checked"
        counted = report.files["training_file"]
        tokens = job.hyperparameters.most_tokens(rows=counted.rows, tokens=counted.tokens)
        if tokens >= job.reserved_tokens:
            return job
        amount = NanoDollars(job.token_rate * tokens)
        await self._reservations.lower(job.organization, job.id, amount)
        return msgspec.structs.replace(job, reserved_tokens=tokens, reserved_amount=amount)

    def _try_again(self, job: Job, what: str, error: JobError | None = None) -> JobProgress:
        if job.check_run >= self._policy.max_attempts:
            message = f"The files could not be checked: the check {what} {job.check_run} times."
            return fail(job, error or JobError("validation_failed", message))
        after = msgspec.structs.replace(
            job, check_run=job.check_run + 1, submitted=False, deadline_ms=None, waits_for=None
        )
        return JobProgress(after, (Note(message=f"The check of the files {what}; starting it again", level="warn"),))

    async def _stop_if_unwanted(self, job: Job, now: Job | None) -> None:
        """End what was just started where the job has moved on: nothing would look after it."""
        if now is None or now.state is not JobState.VALIDATING or now.check_run != job.check_run:
            await self._stop_run(job)

    async def _stop_run(self, job: Job) -> bool:
        return await stop_run(self._runs, check_id(job.id, job.check_run))


def _waiting(job: Job, what: str) -> JobProgress:
    """Wait for what the job cannot change: that does not count against its time."""
    return wait_for(msgspec.structs.replace(job, deadline_ms=None), what)


def _notes(report: DataReport) -> Iterator[Note]:
    for file, found in report.files.items():
        lengths = found.lengths
        figures = {"rows": found.rows, "tokens": found.tokens, "learnt_tokens": found.learnt}
        message = (
            f"The {_named(file)} has {found.rows} rows of {found.tokens} tokens, {found.learnt} of them learnt; half "
            f"of the rows have up to {lengths.median} tokens, the longest {lengths.longest}"
        )
        yield Note(message=message, data=figures, source=f"checked:{file}")
    for number, finding in enumerate(report.findings):
        data = {"code": finding.code, "count": finding.count, "lines": finding.lines}
        message = f"The {_named(finding.file)}: {finding}"
        yield Note(message=message, level="warn", data=data, source=f"found:{number}")


def _named(file: str) -> str:
    return file.replace("_", " ")
